"""The closed shapes of Prometheus' configuration, the alerts and the Grafana dashboard."""

from tests.cluster.shapes import const, exact, words
from tests.k8s.schemas import COUNT, TEXT, Schema, array, closed, one_of

DASHBOARD_PORT = 8265
"""Where `ray start` puts it, since no launcher file says otherwise."""
DURATION = words(r"^\d+[smh]$")
REFRESH = words(r"^([5-9]|[1-9]\d+)s\Z|^[1-9]\d*[mh]\Z")
"""Grafana itself refuses what is more often than every five seconds."""
SINCE = words(r"^now-[1-9]\d*[smhdwMy](/[smhdwMy])?\Z")
OFTEN = words(r"^([1-9]|[1-5]\d)s$")
"""Below a minute: rates over five minutes need some samples."""

PROMETHEUS = exact(
    **{"global": exact(scrape_interval=OFTEN, evaluation_interval=OFTEN)},
    rule_files=const(["alerts.yaml"]),
    scrape_configs=array(
        exact(
            job_name=TEXT,
            http_sd_configs=array(
                exact(
                    url=const(f"http://127.0.0.1:{DASHBOARD_PORT}/api/prometheus/sd"),
                    authorization=exact(type=const("Bearer"), credentials_file=words("^/")),
                )
            ),
            file_sd_configs=array(
                exact(
                    files=array(words(r"^/\S+/ray/prom_[a-z_]+\.json$")),
                    refresh_interval=OFTEN,
                )
            ),
        )
    ),
)
RULE = exact(
    alert=words("^Hipray[A-Z]"), expr=TEXT,
    labels=exact(severity=one_of("warning", "critical", "none")),
    annotations=exact(summary=TEXT, runbook=TEXT), **{"for": DURATION},
)  # fmt: skip
ALERTS = exact(groups=array(exact(name=words("^hipray-"), rules=array(RULE))))

SOURCE = exact(type=const("prometheus"), uid=const("${datasource}"))
VARIABLES: Schema = {
    "type": "array",
    "prefixItems": [
        exact(name=const("datasource"), type=const("datasource"), label=TEXT,
              query=const("prometheus")),
        exact(
            name=const("run"), type=const("query"), label=TEXT, datasource=SOURCE,
            query=words(r"^label_values\(\w+, run\)$"),
            includeAll=const(True), allValue=const(".*"), multi=const(True), refresh=const(2),
        ),
    ],
    "minItems": 2, "maxItems": 2,
}  # fmt: skip
PANEL = exact(
    id=COUNT, type=const("timeseries"), title=TEXT, description=TEXT, datasource=SOURCE,
    gridPos=exact(x={"enum": [0, 12]}, y=COUNT, w=const(12), h={"enum": [8, 12, 16]}),
    fieldConfig=exact(
        defaults=closed(("unit",), unit=TEXT, min=const(0), max={"enum": [1, 100]}),
        overrides=const([]),
    ),
    options=exact(
        legend=exact(displayMode=const("list"), placement=const("bottom")),
        tooltip=exact(mode=const("multi")),
    ),
    targets=array(exact(refId=words("^[A-Z]$"), expr=TEXT, legendFormat=TEXT)),
)  # fmt: skip
DASHBOARD = exact(
    uid=const("hipray"), title=const("hipray"), description=words("not a medical device"),
    tags=array(TEXT), schemaVersion=const(39), version=COUNT, editable=const(True),
    refresh=REFRESH, time=exact(**{"from": SINCE, "to": const("now")}),
    timezone=const("browser"), templating=exact(list=VARIABLES), panels=array(PANEL),
)  # fmt: skip
