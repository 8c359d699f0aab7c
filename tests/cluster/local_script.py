"""What local.sh may say: its variables, its commands and the start of Ray, all word for word."""

import ast
import re
from collections.abc import Iterator

from hipray.distributed.loopback import SWITCH
from hipray.serving.running import ENVIRONMENT

STATE = "RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$STATE/auth_token"
EXPORTS = [
    STATE,
    "RAY_USAGE_STATS_ENABLED=0 NO_ALBUMENTATIONS_UPDATE=1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1",
    f"{SWITCH}=0",
    *(f"{name}={value}" for name, value in ENVIRONMENT.items()),
    "AUTOSCALER_METRIC_PORT=$((PORT + 9)) DASHBOARD_METRIC_PORT=$((PORT + 10))",
]
"""What Ray is started with."""
TOLD = [
    STATE,
    f"{SWITCH}=0",
    "RAY_API_SERVER_ADDRESS=http://127.0.0.1:$DASHBOARD RAY_ADDRESS=127.0.0.1:$PORT",
    "RAY_DASHBOARD_ADDRESS=http://127.0.0.1:$DASHBOARD",
]
"""What a shell is told that works with it."""
VARIABLES = ["STATE", "PORT", "DASHBOARD", "ROOT", "PATH"]
"""What else is set, once each: of the above nothing, in front of a command or later."""
START = (
    'ray start --head --node-ip-address=127.0.0.1 --port="$PORT" '
    '--dashboard-host=127.0.0.1 --dashboard-port="$DASHBOARD" '
    "--ray-client-server-port=$((PORT + 2)) --node-manager-port=$((PORT + 3)) "
    "--object-manager-port=$((PORT + 4)) --metrics-export-port=$((PORT + 5)) "
    "--dashboard-agent-listen-port=$((PORT + 6)) --dashboard-agent-grpc-port=$((PORT + 7)) "
    "--runtime-env-agent-port=$((PORT + 8)) "
    '${HIPRAY_LOCAL_CPUS:+--num-cpus="$HIPRAY_LOCAL_CPUS"} '
    '${HIPRAY_LOCAL_GPUS:+--num-gpus="$HIPRAY_LOCAL_GPUS"} '
    '--temp-dir="$STATE/ray" --disable-usage-stats > "$STATE/start.log" 2>&1 '
)
RIGHTS = ["umask 077", 'chmod 700 "$STATE"']
CLOSED = (
    "set -euo pipefail\n",
    "if folder.stat().st_uid != os.getuid() or int(folder.name) == os.getpid():\n",
    '2>/dev/null | cut -d\' \' -f20)" = "$born" ]; then echo "$pid $born"; fi\n',
    '!= "$(id -u)" ] || [ -L "$STATE" ]; then\n',
    "PORT=${HIPRAY_LOCAL_PORT:-6390}\n",  # not 6379, where a cluster's own head would be
    "DASHBOARD=$((PORT + 1))\n",
    '    ray = any(word.startswith((b"--session-dir", b"--temp-dir", b"--temp_dir", ',
    '              and sys.argv[1].encode() in word + b"/" for word in command)\n',
    '    client = b"ray.util.client.server" in command and any(\n'
    '        word.endswith(f":{sys.argv[2]}".encode()) for word in command)\n'
    "    if ray or client:\n        own.add(folder.name)\n"
    "while more := {p for p, (parent, _) in parents.items() if parent in own and p not in own}:\n"
    "    own |= more\nprint(",
    '  python - "$STATE/ray/" "$PORT" <<\'PY\'\n',
    "    parents[folder.name] = (fields[1], fields[19])\n",
    'list=$( (own_processes; still_there 2>/dev/null < "$STATE/processes" || true) 2>/dev/null | ',
    "python -c 'import secrets; print(secrets.token_hex(32))' > \"$RAY_AUTH_TOKEN_PATH\"\n",
)
"""Lines that tell its own processes and files from those of others."""
KILLS = ['kill -s "$signal" $(still_there <<< "$list" | cut -d\' \' -f1) 2>/dev/null || true']
"""A number of another origin, or -1, would be someone else's process, or all of them."""
TOKEN_LINES = [
    f"export {STATE}",
    '[ -s "$RAY_AUTH_TOKEN_PATH" ] || return 1',
    'python - "http://127.0.0.1:$DASHBOARD/api/version" "$RAY_AUTH_TOKEN_PATH" 2>/dev/null '
    "<<'PY'",
    "token = open(sys.argv[2]).read().strip()",
    'request = urllib.request.Request(sys.argv[1], headers={"Authorization": f"Bearer {token}"})',
    'if [ ! -s "$RAY_AUTH_TOKEN_PATH" ]; then',
    "python -c 'import secrets; print(secrets.token_hex(32))' > \"$RAY_AUTH_TOKEN_PATH\"",
    f'echo "export {STATE}"',
]
"""Every use of the token and its file: none shows it."""
SHOWN = [
    'print("\\n".join(f"{p} {parents[p][1]}" for p in sorted(own, key=int)))',
    TOKEN_LINES[-2],
    '|| { cat "$STATE/start.log" >&2; stop > /dev/null; exit 75; }  # what came up goes down again',
]
"""All files and values that it prints: numbers of processes, a new token into its file, a log."""
ENDS = [
    "return 1",  # no token yet: nothing answers
    "return",  # already running
    "exit 1", "exit 1",  # an earlier start, a stranger's folder: a person has to look
    "exit 75", "return", "exit 75",  # it did not come up: trying again may help
    "return",  # nothing to stop
    "exit 1",  # status of what does not run
    "exit 2",
]  # fmt: skip
"""How it ends, in the order of the file: schedulers and scripts read the codes."""
PYTHON = {
    "Path", "Request", "add", "any", "encode", "endswith", "getpid", "getuid", "glob", "int",
    "items", "join", "open", "print", "read", "read_bytes", "read_text", "rpartition", "set",
    "sorted", "split", "startswith", "stat", "strip", "urlopen",
}  # fmt: skip
"""All that its pieces of Python call."""
COMMANDS = {
    "answers", "break", "case", "cat", "cd", "chmod", "cut", "dirname", "do", "done", "echo",
    "env", "environment", "esac", "exit", "export", "fi", "for", "id", "if", "kill", "local",
    "mkdir", "own_processes", "pwd", "python", "ray", "read", "return", "rm", "sed", "seq",
    "set", "sleep", "sort", "start", "stat", "status", "still_there", "stop", "then", "true",
    "umask",
}  # fmt: skip
"""All that it calls, its own functions and the shell's words included."""
IN_PLACE_OF_A_COMMAND = re.compile(
    r"(?:^|[;|&({)])[ ]*(?:(?:then|else|do|if|while)[ ]+)*([a-z_][\w.-]*)(?=[ \n;)]|$)", re.M
)


def find_local_problems(text: str) -> list[str]:
    """Return what would open the local head to others, or is not of it."""
    shell = re.sub(r"<<'PY'\n.*?^PY\n", "\n", text, flags=re.M | re.S)
    shell = re.sub(r"^ *#.*\n|  # .*$", "", shell.replace("\\\n", " "), flags=re.M)
    exports = re.findall(r"^ *export (.+)$", shell, re.M)
    told = re.findall(r'^ *echo "export (.+)"$', shell, re.M)
    rest = re.sub(r'^ *(?:echo ")?export .+$', "", shell, flags=re.M)
    problems = [f"lacks {line.strip()}" for line in CLOSED if line not in text]
    lines = [line.strip() for line in text.splitlines() if not line.lstrip().startswith("#")]
    for what, found, known in (
        ("ends processes by", [line for line in lines if re.search(r"\bkill\b", line)], KILLS),
        ("uses its token in", [line for line in lines if TOKEN.search(line)], TOKEN_LINES),
        ("shows", [line for line in lines if re.search(r"\bcat\b|\bprint\(", line)], SHOWN),
        ("ends with", re.findall(r"\b(?:exit|return)\b(?: \w+)?", shell), ENDS),
        ("exports", exports, EXPORTS),
        ("tells", told, TOLD),
        ("sets", re.findall(r"(?<![\w$])([A-Z][A-Z0-9_]*)=", rest), VARIABLES),
        ("gives rights by", re.findall(r"\b(?:chmod|umask) .+", shell), RIGHTS),
        ("starts", re.findall(r"\bray start .*?(?=\|\|)", re.sub(" +", " ", shell)), [START]),
    ):
        if found != known:
            problems.append(f"{what} {found} instead of {known}")
    unquoted = re.sub(r'"(?:\\.|(?!\$\()[^"\\\n])*"|\'[^\'\n]*\'', '""', shell)
    called = set(IN_PLACE_OF_A_COMMAND.findall(unquoted))
    called |= {f"python's {word}" for word in set(_list_calls(text)) - PYTHON}
    return problems + [f"calls {word}" for word in sorted(called - COMMANDS)]


TOKEN = re.compile(r"auth_token|AUTH_TOKEN_PATH|\btoken\b(?! RAY)|secrets")


def _list_calls(text: str) -> Iterator[str]:
    """Yield the name of all that the Python inside of the script calls."""
    for piece in re.findall(r"<<'PY'\n(.*?)^PY\n", text, re.M | re.S):
        for node in ast.walk(ast.parse(piece)):
            if isinstance(node, ast.Call):
                yield ast.unparse(node.func).rpartition(".")[2]
