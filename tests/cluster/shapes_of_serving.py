"""The closed shape of a Serve config file: the keys that this project's endpoint is told by.

Ray's own schema lets unknown keys pass, and many known ones open the endpoint, stop it or take what
its node does not have; hipray's arguments would do some of that, too.
"""

from hashlib import sha256

from hipray.config.jobs import ServeRun
from hipray.config.storage import AddressingStyle, ChecksumMode, Encryption, Listing, RetryMode
from hipray.distributed.loopback import WORKER_HOOK
from hipray.vocab import Precision, RuntimeChoice
from tests.cluster.shapes import const, exact, words
from tests.k8s.schemas import FLAG, TEXT, Schema, array, closed, one_of

MOST_REPLICAS = 16
"""No deployment of this project may grow beyond it; a larger number is a slip."""
BOUNDS: dict[str, tuple[float, float]] = {
    "memory_gib": (1, 128), "port": (8000, 8000), "batch": (1, 64), "batch_wait_s": (0, 1),
    "max_replicas": (1, MOST_REPLICAS), "rollout_timeout_s": (120, 7200), "queue": (1, 1024),
    "max_held_bytes": (250e6, 16e9), "request_timeout_s": (10, 300), "batch_at_once": (1, 64),
    "max_batch_bytes": (250e6, 16e9), "readers": (1, 16), "cpus_per_stage": (0.1, 8),
    "cpus_per_ingress": (0.1, 4), "gpus_per_stage": (0, 1),
}  # fmt: skip
"""Every number of the endpoint and what a node of this project holds, or a caller waits for."""


def within(least: float, most: float) -> Schema:
    """Return a schema of numbers from one to another."""
    return {"type": "number", "minimum": least, "maximum": most}


def _number(name: str) -> Schema:
    whole = "int" in str(ServeRun.model_fields[name].annotation)
    return {**within(*BOUNDS[name]), "type": "integer" if whole else "number"}


REPLICAS: Schema = {"type": "integer", "minimum": 1, "maximum": MOST_REPLICAS}
SCALING = closed(
    **{
        name: closed(min_replicas=REPLICAS, max_replicas=REPLICAS, max_replicas_per_node=REPLICAS)
        for name in ("ingress", "segmenter", "matting", "ensemble", "pipeline")
    },
    look_back_s=within(1, 120), upscale_delay_s=within(0, 60), downscale_delay_s=within(30, 3600),
)  # fmt: skip
HTTPS = words(r"^https://")
FILE = words(r"^/")
PACS = closed(
    ("name", "url"), name=TEXT, url=HTTPS, authorization_file=FILE,
    connect_timeout_s=within(1, 30), read_timeout_s=within(1, 120),
)  # fmt: skip
STORAGE = closed(
    endpoint_url=HTTPS, region=TEXT, checksums=one_of(*ChecksumMode), retries=one_of(*RetryMode),
    addressing=one_of(*AddressingStyle), listing=one_of(*Listing),
    server_side_encryption=one_of(*Encryption), max_attempts=within(1, 20),
    connect_timeout_s=within(1, 30), read_timeout_s=within(1, 120),
)  # fmt: skip
OF_NOTHING = [sha256(text).hexdigest() for text in (b"", b"\n")]
"""What `sha256sum` makes of a variable that is not set: with it a caller without a token is one."""
TOKENS: Schema = {
    "type": "array",
    "items": {**words("^[0-9a-f]{64}$"), "not": {"enum": OF_NOTHING}},
}
NEEDED = (
    "workspace", "release", "host", "allowed_prefixes", "batch", "queue", "request_timeout_s",
    "max_replicas", "cpus_per_stage",
)  # fmt: skip
"""What has to be said: hipray's defaults are those of a laptop."""
ARGUMENTS = closed(
    NEEDED, workspace=TEXT, release=TEXT, host=TEXT, allowed_prefixes=array(TEXT),
    token_sha256=TOKENS, token_file=FILE, allow_phantom_release=FLAG, fused=FLAG,
    runtime=one_of(*RuntimeChoice), precision=one_of(*Precision),
    storage=STORAGE, scaling=SCALING, pacs=array(PACS),
    **{name: _number(name) for name in BOUNDS},
)  # fmt: skip
"""Without `dicom_of_named_films`: its answers name the patient to whoever names a film."""
DEPLOYMENT = closed(
    ("name",), name=const("ingress"), max_replicas_per_node=REPLICAS,
    autoscaling_config=exact(
        min_replicas=REPLICAS, max_replicas=REPLICAS, target_ongoing_requests=within(1, 64),
        upscale_delay_s=within(0, 60), downscale_delay_s=within(30, 3600),
    ),
)  # fmt: skip
"""How many there are; what a replica takes and holds hipray says itself."""
APPLICATION = closed(
    ("name", "route_prefix", "import_path", "args"), name=const("hipray"), route_prefix=const("/"),
    import_path=TEXT, runtime_env=const({"worker_process_setup_hook": WORKER_HOOK}),
    args=ARGUMENTS, deployments={**array(DEPLOYMENT), "maxItems": 1},
)  # fmt: skip
QUIET = {"log_level": "WARNING", "enable_access_log": False}
"""Paths and queries of requests may name patients."""
SERVE = exact(
    proxy_location=one_of("HeadOnly", "EveryNode"),
    http_options=exact(
        host=TEXT, port=const(8000), request_timeout_s=within(10, 330),
        keep_alive_timeout_s=within(10, 600),
    ),
    logging_config=const(QUIET),
    applications={**array(APPLICATION), "maxItems": 1},
)  # fmt: skip
