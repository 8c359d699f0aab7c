"""Ray 2.60's own metrics that dashboard and alerts ask for, with their labels and units, from its
source (autoscaler/_private/prom_metrics.py, dashboard/consts.py, serve/_private)."""

from dataclasses import dataclass

SCRAPED = frozenset({"instance", "job"})
"""What Prometheus itself adds to every series."""
SESSION = frozenset({"SessionName", "Version"})
NODE = SESSION | {"ip", "IsHeadNode", "RayNodeType"}
GPU = NODE | {"GpuDeviceName", "GpuIndex", "GpuUuid"}
CORE = SESSION | {"NodeAddress", "Component", "WorkerId"}
HTTP = CORE | {"route", "method", "application"}
REPLICA = CORE | {"deployment", "replica", "application"}
HANDLE = CORE | {"deployment", "application", "handle", "actor_id"}


@dataclass(frozen=True)
class RayMetric:
    """A metric as Prometheus sees it."""

    labels: frozenset[str]
    unit: str
    """As Grafana names it."""


RAY_METRICS = {
    "autoscaler_active_nodes": RayMetric(frozenset({"NodeType", "SessionName"}), "short"),
    "autoscaler_pending_nodes": RayMetric(frozenset({"NodeType", "SessionName"}), "short"),
    # autoscaler v2 counts here what is being ended, for whatever reason
    "autoscaler_recently_failed_nodes": RayMetric(frozenset({"NodeType", "SessionName"}), "short"),
    "ray_resources": RayMetric(CORE | {"Name", "State"}, "short"),
    "ray_object_store_memory": RayMetric(CORE | {"Location", "ObjectState"}, "bytes"),
    "ray_node_cpu_count": RayMetric(NODE, "short"),
    "ray_node_cpu_utilization": RayMetric(NODE, "percent"),
    "ray_node_mem_used": RayMetric(NODE, "bytes"),
    "ray_node_mem_total": RayMetric(NODE, "bytes"),
    "ray_node_disk_free": RayMetric(NODE, "bytes"),
    "ray_node_disk_usage": RayMetric(NODE, "bytes"),
    "ray_node_gpus_utilization": RayMetric(GPU, "percent"),
    "ray_node_gram_used": RayMetric(GPU, "mbytes"),
    "ray_node_gram_available": RayMetric(GPU, "mbytes"),
    "ray_serve_num_http_requests_total": RayMetric(HTTP | {"status_code"}, "short"),
    "ray_serve_num_http_error_requests_total": RayMetric(HTTP | {"error_code"}, "short"),
    "ray_serve_http_request_latency_ms": RayMetric(HTTP | {"status_code"}, "ms"),
    "ray_serve_deployment_processing_latency_ms": RayMetric(REPLICA | {"route"}, "ms"),
    "ray_serve_deployment_queued_queries": RayMetric(HANDLE, "short"),
    "ray_serve_replica_processing_queries": RayMetric(REPLICA, "short"),
    "ray_serve_deployment_status": RayMetric(CORE | {"deployment", "application"}, "short"),
}
"""Histograms by their stem, without _bucket, _count and _sum."""
