"""Prometheus, alerts and the dashboard name metrics that exist: Ray's own and the package's."""

import copy
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from hipray.serving.audit_line import Outcome
from hipray.serving.problems import ProblemCode
from hipray.vocab import FitState, RefusalCode
from tests.cluster.known_metrics import STEM, is_known, list_buckets, list_labels, own_metrics
from tests.cluster.queries import (
    PER_SECOND,
    find_bucket_problems,
    find_lost_variables,
    find_query_problems,
    find_range_problems,
    read_unit,
)
from tests.cluster.ray_metrics import RAY_METRICS, SCRAPED
from tests.cluster.shapes import START_HEAD
from tests.cluster.shapes_of_monitoring import ALERTS, DASHBOARD, DASHBOARD_PORT, PROMETHEUS
from tests.k8s.kustomize import read_documents
from tests.k8s.mutation import spoil, spoil_everywhere
from tests.k8s.shapes import INTERVAL

ROOT = Path(__file__).resolve().parent.parent.parent
CLUSTER = ROOT / "cluster"
(RULE,) = read_documents(ROOT / "k8s/base/prometheus-rule.yaml")
OF_KUBERNETES: dict[str, Any] = RULE["spec"]["groups"][-1]
"""The alerts that machines without Kubernetes have not."""
ALL_VALUES = r"label_values\((\w+), (\w+)\)"
"""Grafana's own question for what a variable may be."""
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
GROUPING = "by|without|on|ignoring|group_left|group_right"


def _expressions(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            asks = key == "expr" or (key == "query" and node.get("type") != "datasource")
            if asks and isinstance(value, str):
                yield value
            yield from _expressions(value)
    elif isinstance(node, list):
        for each in node:
            yield from _expressions(each)


def _unknown(document: Any) -> set[str]:
    named = {name for text in _expressions(document) for name in _name_metrics(text)}
    assert named
    return {name for name in named if not is_known(name)}


def _name_metrics(text: str) -> list[str]:
    """The metrics of a query: what is left of it without labels, ranges and functions."""
    if found := re.fullmatch(ALL_VALUES, text.strip()):
        return [found[1]]
    for clause in (r"\{[^}]*\}", r"\[[^\]]*\]", rf"\b(?:{GROUPING})\s*\([^)]*\)", r"\$\{?\w+\}?"):
        text = re.sub(clause, " ", text)
    names = re.findall(r"\b[a-zA-Z_:][\w:]*\b(?!\s*\()", text)
    return [name for name in names if name not in {"and", "or", "unless", "bool", "offset"}]


(NIGHTLY,) = read_documents(ROOT / "k8s/base/cron-job.score.yaml")
ON_KUBERNETES = frozenset({"ray_io_cluster", "app_kubernetes_io_component", "namespace", "pod"})
"""What the Prometheus operator adds to the series of a pod."""
VALUES: dict[str, set[str]] = {
    "state": {*FitState}, "outcome": {*Outcome}, "code": {*ProblemCode, *RefusalCode},
    "Name": {"CPU", "GPU", "memory", "object_store_memory"},
    "error_code": {"500", "503"}, "cronjob": {NIGHTLY["metadata"]["name"]},
    "ray_io_cluster": {"hipray", "hipray-endpoint-x7k2p"}, "RayNodeType": {"head", "worker"},
}  # fmt: skip
"""What may stand behind a label; of a pattern, something that it has to match."""


def _labels_of(name: str) -> set[str]:
    """Return the labels of a metric, whoever makes it, as Prometheus has it."""
    return {*list_labels(name), *SCRAPED, "le"}


def _label_problems(text: str, added: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield labels and values of a query that its metrics do not have."""
    known = added.union(*(_labels_of(name) for name in _name_metrics(text)))
    for clause in re.findall(r"\b(?:by|without|on)\s*\(([^)]*)\)", text):
        yield from (word for word in re.split(r"[,\s]+", clause.strip()) if word not in known)
    if found := re.fullmatch(ALL_VALUES, text.strip()):
        yield from {found[2]} - known
    for label, operator, value in MATCHER.findall(text):
        if label not in known:
            yield label
        elif value.startswith("$") and operator != "=~":
            yield f"{label}{operator}{value}: several chosen ones are a pattern"
        elif label in VALUES and not any(re.fullmatch(value, word) for word in VALUES[label]):
            yield f"{label}={value}"


def _shown_label_problems(text: str, query: str) -> Iterator[str]:
    """Yield labels of a legend or a summary that the query's result does not have."""
    kept = {word for clause in re.findall(r"\bby\s*\(([^)]*)\)", query) for word in
            re.split(r"[,\s]+", clause)}  # fmt: skip
    kept = kept or set().union(*(_labels_of(name) for name in _name_metrics(query)))
    shown = re.findall(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}", text)
    yield from (label for label in shown if label not in kept)


def _list_rules() -> list[dict[str, Any]]:
    """Return all alerts: those of every cluster, and those of Kubernetes only."""
    groups = [*_read("alerts.yaml")["groups"], OF_KUBERNETES]
    return [rule for group in groups for rule in group["rules"]]


def test_legends_and_summaries_show_labels_of_their_queries() -> None:
    shown = [
        (target["legendFormat"], target["expr"])
        for panel in _read("grafana.json")["panels"]
        for target in panel["targets"]
    ]
    shown += [(rule["annotations"]["summary"], rule["expr"]) for rule in _list_rules()]
    assert [p for text, query in shown for p in _shown_label_problems(text, query)] == []
    assert [*_shown_label_problems("{{Stat}}", 'sum by (State) (ray_resources{Name="GPU"})')]


def _unit_of(metric: str) -> str:
    """Return the unit of Ray's metrics by their list, of the package's own by their names."""
    if known := RAY_METRICS.get(metric):
        return known.unit
    ends = {"_seconds": "s", "_probability": "percentunit", "_bytes": "bytes"}
    return next((unit for end, unit in ends.items() if metric.endswith(end)), "short")


SHOWN_AS = {PER_SECOND: {"reqps", "cps"}}
"""Grafana's words for a unit, where it has several."""
WHOLE = {"percent": 100, "percentunit": 1}
"""Where an axis of shares ends."""


def _find_panel_problems(panel: dict[str, Any]) -> Iterator[str]:
    defaults = panel["fieldConfig"]["defaults"]
    shown = defaults["unit"]
    if "max" in defaults and defaults["max"] != WHOLE.get(shown):
        yield f"{panel['title']}: its axis ends at {defaults['max']} {shown}"
    named = [target["refId"] for target in panel["targets"]]
    if len(set(named)) < len(named):
        yield f"{panel['title']}: two queries of one name"
    for target in panel["targets"]:
        problems: list[str] = []
        unit = read_unit(target["expr"], _unit_of, problems)
        yield from problems
        if shown not in SHOWN_AS.get(unit, {unit}):
            yield f"{panel['title']}: {target['expr']} is in {unit}, not {shown}"


def test_each_panel_asks_in_promql_and_shows_the_unit_of_the_answer() -> None:
    panels = _read("grafana.json")["panels"]
    assert [p for panel in panels for p in _find_panel_problems(panel)] == []


def test_each_alert_asks_in_promql() -> None:
    assert [p for rule in _list_rules() for p in find_query_problems(rule["expr"], _unit_of)] == []


@pytest.mark.parametrize(
    ("title", "before", "after"),
    [
        ("Requests per second", "[5m]", "[5x]"),
        ("Requests per second", "[5m]", ""),
        ("Requests per second", "rate(", "rat("),
        ("Requests per second", "rate(", "increase("),
        ("Requests per second", "rate(", "changes("),
        ("Fits by state", "=~", "~="),
        ("Fits by state", "sum by (state)", "rate"),
        ("Memory", " / ", " / / "),
        ("Memory", "ray_node_mem_total", "ray_node_cpu_count"),
        ("Latency of the endpoint", "0.95", "95"),
        ("Latency of the endpoint", " by (le)", ""),
        ("Latency of the endpoint", "_bucket", ""),
        ("Latency of the endpoint", "_bucket", "_sum"),
        ("Seconds of a fit (median, 95 %)", "le, network", "network"),
        ("Films in a forward pass (mean)", "_count", "_sum"),
        ("Fits finished per hour", "increase", "rate"),
        ("Object store", "sum by (Location) (ray_object_store_memory)", "ray_hipray_films_total"),
    ],
)
def test_a_slip_in_a_query_is_found(title: str, before: str, after: str) -> None:
    (panel,) = [each for each in _read("grafana.json")["panels"] if each["title"] == title]
    assert before in panel["targets"][-1]["expr"]
    panel["targets"][-1]["expr"] = panel["targets"][-1]["expr"].replace(before, after)
    assert [*_find_panel_problems(panel)]


def test_a_panel_in_another_unit_is_found() -> None:
    for panel in _read("grafana.json")["panels"]:
        shown = panel["fieldConfig"]["defaults"]["unit"]
        panel["fieldConfig"]["defaults"]["unit"] = "s" if shown == "ms" else "ms"
        assert [*_find_panel_problems(panel)], panel["title"]


@pytest.mark.parametrize("name", ["grafana.json", "alerts.yaml"])
def test_queries_ask_for_labels_and_values_that_exist(name: str) -> None:
    assert [p for text in _expressions(_read(name)) for p in _label_problems(text)] == []


def test_alerts_on_kubernetes_ask_for_labels_and_values_that_exist() -> None:
    asked = _expressions(OF_KUBERNETES)
    assert [p for text in asked for p in _label_problems(text, ON_KUBERNETES)] == []


@pytest.mark.parametrize(
    "text",
    [
        'absent(ray_node_cpu_count{ray_io_cluster="hipra"})',
        'absent(ray_node_cpu_count{RayNodeType="haed"})',
        'max by (namespace) (kube_cronjob_created{cronjob="hipray-scor"})',
        'max by (namespac) (kube_cronjob_created{cronjob="hipray-score"})',
        "kube_cronjob_created unless on (cronjbo) kube_cronjob_spec_suspend",
    ],
)
def test_a_slip_in_a_label_on_kubernetes_is_found(text: str) -> None:
    assert [*_label_problems(text, ON_KUBERNETES)]


@pytest.mark.parametrize(
    "text",
    [
        "sum by (reason) (rate(ray_hipray_refusals_total[5m]))",
        'ray_hipray_grid_fits{status="failed"}',
        'ray_hipray_grid_fits{state="faild"}',
        'rate(ray_hipray_films_total{outcome="reject"}[1h])',
        "sum by (NodeTyp) (autoscaler_active_nodes)",
        'sum by (State) (ray_resources{Nam="GPU"})',
        'sum by (State) (ray_resources{Name="GUP"})',
        "sum by (eror_code) (rate(ray_serve_num_http_error_requests_total[5m]))",
        'rate(ray_serve_num_http_error_requests_total{error_code=~"6.."}[5m])',
        "min by (deploymnt) (ray_serve_deployment_status)",
        "sum by (State) (ray_hipray_grid_fits)",
        "label_values(ray_hipray_grid_fits, runn)",
        "label_values(ray_node_cpu_count, run)",
        'ray_hipray_grid_fits{run="$run"}',
        'ray_hipray_grid_fits{run!~"$run"}',
        'ray_hipray_grid_fits{runn!~"$run"}',
        'rate(ray_serve_num_http_error_requests_total{error_cod!="503"}[5m])',
        'rate(ray_serve_num_http_error_requests_total{error_code!="530"}[5m])',
    ],
)
def test_a_slip_in_a_label_is_found(text: str) -> None:
    assert [*_label_problems(text)]


def _scraped_s() -> float:
    """Return how often the slower of both Prometheuses asks."""
    told = _read("prometheus.yaml")["global"]["scrape_interval"]
    return max(float(each.removesuffix("s")) for each in (told, INTERVAL))


def _list_queries() -> list[str]:
    """Return what panels and alerts ask."""
    targets = [each for panel in _read("grafana.json")["panels"] for each in panel["targets"]]
    return [each["expr"] for each in targets + _list_rules()]


def test_ranges_hold_some_scrapes_and_bounds_are_those_of_buckets() -> None:
    queries = _list_queries()
    assert [p for text in queries for p in find_range_problems(text, _scraped_s())] == []
    assert [p for text in queries for p in find_bucket_problems(text, list_buckets)] == []


@pytest.mark.parametrize("asked", ["1s", "30s", "59s"])
def test_a_range_without_enough_scrapes_is_found(asked: str) -> None:
    for text in _list_queries():
        spoilt = re.sub(r"\[\w+\]", f"[{asked}]", text)
        assert [*find_range_problems(spoilt, _scraped_s())] or spoilt == text


def test_a_scrape_that_is_too_rare_for_a_range_is_found() -> None:
    assert [p for text in _list_queries() for p in find_range_problems(text, 5 * 60)]


@pytest.mark.parametrize(
    "text",
    [
        'rate(ray_hipray_probability_bucket{le="0.55"}[1d])',
        'rate(ray_hipray_probability_bucket{le="50"}[1d])',
        'rate(ray_hipray_probability_bucket{le=".5"}[1d])',
        'rate(ray_hipray_request_seconds_bucket{le="0.3"}[1d])',
        'rate(ray_hipray_probability_count{le="0.5"}[1d])',
        'rate(ray_hipray_batch_films_bucket{le="3.0"}[1d])',
        'rate(ray_hipray_grid_fit_seconds_bucket{le="2.0"}[1d])',
    ],
)
def test_a_bound_of_no_bucket_is_found(text: str) -> None:
    assert [*find_bucket_problems(text, list_buckets)]


def test_the_package_has_metrics_of_its_own() -> None:
    assert "ray_hipray_grid_fits" in own_metrics()


def test_the_dashboard_shows_metrics_that_exist() -> None:
    assert _unknown(json.loads((CLUSTER / "grafana.json").read_text("utf-8"))) == set()


def test_the_alerts_watch_metrics_that_exist() -> None:
    assert _unknown(_list_rules()) == set()


def test_a_misspelt_metric_is_found() -> None:
    assert _unknown({"expr": "sum(ray_hipray_grid_fit)"}) == {"ray_hipray_grid_fit"}
    text = "kube_cronjob_status_last_success_time"
    assert _unknown({"expr": text}) == {text}
    assert _unknown({"expr": "autoscaler_nodes"}) == {"autoscaler_nodes"}
    assert _unknown({"expr": "sum by (code) (rate(hipray_requests_total[5m]))"}) == {
        "hipray_requests_total"
    }


def test_every_metric_of_the_package_is_on_the_dashboard() -> None:
    shown = (CLUSTER / "grafana.json").read_text("utf-8")
    stems = {STEM.sub("", name) for name in own_metrics()}
    assert [stem for stem in sorted(stems) if stem not in shown] == []


def test_the_dashboard_numbers_its_panels_and_knows_its_variables() -> None:
    dashboard = _read("grafana.json")
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert list(_find_overlaps(panels)) == []
    variables = {each["name"] for each in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z_]+)\}?", json.dumps(dashboard)))
    assert used == variables
    assert [p for panel in panels for p in _find_lost_runs(panel)] == []


def _find_lost_runs(panel: dict[str, Any]) -> list[str]:
    """Return the metrics of a panel that it shows of every run, whichever are chosen."""
    asked = [target["expr"] for target in panel["targets"]]
    return [p for text in asked for p in find_lost_variables(text, "run", _labels_of)]


@pytest.mark.parametrize("after", ["", '{run="grid"}', '{run!~"$run"}', '{run=~"$runs"}'])
def test_a_panel_that_forgets_the_chosen_runs_is_found(after: str) -> None:
    spoilt = 0
    for panel in _read("grafana.json")["panels"]:
        for target in panel["targets"]:
            before, target["expr"] = target["expr"], target["expr"].replace(CHOSEN, after)
            spoilt += before != target["expr"]
        assert bool(_find_lost_runs(panel)) is (CHOSEN in before)
    assert spoilt == 6


CHOSEN = '{run=~"$run"}'


def _find_overlaps(panels: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the panels of each column that begin before the one above has ended."""
    ends: dict[int, int] = {}
    for panel in sorted(panels, key=lambda each: each["gridPos"]["y"]):
        place = panel["gridPos"]
        if place["y"] < ends.get(place["x"], 0):
            yield panel["title"]
        ends[place["x"]] = place["y"] + place["h"]


def test_a_panel_upon_another_is_found() -> None:
    panels = _read("grafana.json")["panels"]
    panels[2]["gridPos"]["y"] = 4
    assert list(_find_overlaps(panels)) == [panels[2]["title"]]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("templating/list/0/query", "loki"),
        ("templating/list/1/query", "label_values(ray_hipray_grid_fits, runn)"),
        ("panels/0/gridPos/h", 0),
        ("panels/0/gridPos/w", 0),
        ("panels/0/fieldConfig/defaults/max", 0),
        ("panels/0/fieldConfig/defaults/max", 100),
        ("panels/0/fieldConfig/defaults/min", 1),
        ("panels/3/targets/1/refId", "A"),
        *(("refresh", each) for each in ("0s", "1s", "30", "30x", "s", "-5s", "30s\n", "05s")),
        *(
            ("time/from", each)
            for each in ("now-", "now-6", "now-6x", "now-0h", "now+6h", "6h", "now-6h/x", "now-6h ")
        ),
        ("time/to", "now+1h"),
        ("time/to", "now-"),
    ],
)
def test_a_slip_in_the_dashboard_is_found(path: str, value: Any) -> None:
    dashboard = _read("grafana.json")
    spoil(dashboard, path, value)
    problems = [p for panel in dashboard["panels"] for p in _find_panel_problems(panel)]
    assert problems or not Draft202012Validator(DASHBOARD).is_valid(dashboard)


def test_every_alert_has_a_passage_in_the_runbook() -> None:
    headings = re.findall(r"^\*\*(.+?)\*\*", (CLUSTER / "README.md").read_text("utf-8"), re.M)
    words = " ".join(headings).lower()
    for rule in _list_rules():
        assert re.search(rf"\b{rule['annotations']['runbook']}\b", words), rule["alert"]


ALERTS_OF_KUBERNETES = {
    "HiprayClusterUnseen": ("head", {"ray_io_cluster", "RayNodeType"}),
    "HiprayNightMissed": ("night", {"cronjob"}),
}
"""The word of the passage, and the labels by which each asks: with fewer it asks of others, too."""


def test_kubernetes_has_two_alerts_of_its_own() -> None:
    assert _find_problems_of_kubernetes(OF_KUBERNETES) == []


def _find_problems_of_kubernetes(group: dict[str, Any]) -> list[str]:
    """Return where the alerts of what has a name on Kubernetes are others, or ask of others."""
    validator = Draft202012Validator(ALERTS)
    wrong = [error.message[:200] for error in validator.iter_errors({"groups": [group]})]
    if wrong:
        return wrong
    found = {
        rule["alert"]: (rule["annotations"]["runbook"], _labels_asked(rule["expr"]))
        for rule in group["rules"]
    }
    told = {
        name: (word, {frozenset(labels)}) for name, (word, labels) in ALERTS_OF_KUBERNETES.items()
    }
    return [] if found == told else [f"alerts {found} instead of {told}"]


def _labels_asked(text: str) -> set[frozenset[str]]:
    """Return the different sets of labels by which a query asks its metrics."""
    clauses = re.findall(r"\{([^}]*)\}", text)
    asked = {frozenset(label for label, _, _ in MATCHER.findall(each)) for each in clauses}
    return asked | ({frozenset[str]()} if len(clauses) < len(_name_metrics(text)) else set())


def test_each_slip_in_an_alert_of_kubernetes_is_found() -> None:
    for slip, spoilt in spoil_everywhere(OF_KUBERNETES):
        assert _find_problems_of_kubernetes(spoilt), slip


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("rules", OF_KUBERNETES["rules"][:1]),
        ("rules/1/annotations/runbook", "head"),
        ("rules/1/alert", "HiprayNightMised"),
        ("rules/0/labels/severity", "page"),
        ("rules/1/expr", "time() - kube_cronjob_created > 108000"),
        ("rules/0/expr", 'absent(ray_node_cpu_count{ray_io_cluster="hipray"})'),
    ],
)
def test_another_alert_of_kubernetes_is_found(path: str, value: Any) -> None:
    group = copy.deepcopy(OF_KUBERNETES)
    spoil(group, path, value)
    assert _find_problems_of_kubernetes(group)


SHAPED = {
    "prometheus.yaml": PROMETHEUS, "alerts.yaml": ALERTS, "grafana.json": DASHBOARD,
}  # fmt: skip


def _read(name: str) -> Any:
    return yaml.safe_load((CLUSTER / name).read_text("utf-8"))  # JSON is YAML


@pytest.mark.parametrize("name", SHAPED)
def test_each_file_has_its_keys_and_each_slip_is_found(name: str) -> None:
    validator = Draft202012Validator(SHAPED[name])
    assert [error.message for error in validator.iter_errors(_read(name))] == []
    few = _read(name) | ({"panels": _read(name)["panels"][:2]} if name == "grafana.json" else {})
    for slip, spoilt in spoil_everywhere(few):
        assert not validator.is_valid(spoilt) or slip in MAY_GO, slip


MAY_GO = {
    f"panels/{number}/fieldConfig/defaults/{key} left out"
    for number in range(2)
    for key in ("min", "max")
}
"""Bounds of an axis."""


def test_prometheus_accepts_configuration_and_rules() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    ended = subprocess.run(
        ["promtool", "check", "config", "prometheus.yaml"],
        cwd=CLUSTER, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_prometheus_asks_the_dashboard_where_the_launcher_leaves_it() -> None:
    from ray._private.ray_constants import DEFAULT_DASHBOARD_PORT

    started = [START_HEAD["const"], *(_read(f"{name}.yaml") for name in ("aws", "onprem"))]
    assert "--dashboard-port" not in str(started)
    assert DASHBOARD_PORT == DEFAULT_DASHBOARD_PORT


def test_prometheus_reads_what_a_local_head_writes() -> None:
    from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE

    (scraped,) = _read("prometheus.yaml")["scrape_configs"]
    (found,) = scraped["file_sd_configs"]
    script = (CLUSTER / "local.sh").read_text("utf-8")
    assert "STATE=${HIPRAY_LOCAL:-/tmp/hipray-$(id -u)}\n" in script
    assert '--temp-dir="$STATE/ray" ' in script
    (path,) = found["files"]
    assert re.fullmatch(rf"/tmp/hipray-\d+/ray/{PROMETHEUS_SERVICE_DISCOVERY_FILE}", path)


TESTED = ("alerts_test.yaml", "alerts_of_a_week_test.yaml")


def test_alerts_fire_when_they_should_and_only_then() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    ended = subprocess.run(
        ["promtool", "test", "rules", *TESTED],
        cwd=Path(__file__).parent, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_alert_is_seen_to_fire() -> None:
    fired = set()
    for name in TESTED:
        cases = yaml.safe_load(Path(__file__).with_name(name).read_text("utf-8"))["tests"]
        asked = [each for case in cases for each in case["alert_rule_test"]]
        fired |= {each["alertname"] for each in asked if each.get("exp_alerts")}
    groups = _read("alerts.yaml")["groups"]
    assert fired == {rule["alert"] for group in groups for rule in group["rules"]}
