"""What may end by itself in the bucket: old versions, halves of uploads and marks of deletions, and
never an object as it is."""

from typing import Any

import botocore.session
from botocore.validate import ParamValidator
from jsonschema import Draft202012Validator

from tests.cluster.shapes import const, exact, words
from tests.k8s.schemas import Schema, array
from tests.k8s.shapes import between

RULE = exact(
    ID=words(r"^[a-z][a-z0-9-]*$"),
    Status=const("Enabled"),
    Filter=const({}),
    NoncurrentVersionExpiration=exact(NoncurrentDays=between(7, 365)),
    Expiration=const({"ExpiredObjectDeleteMarker": True}),
    AbortIncompleteMultipartUpload=exact(DaysAfterInitiation=between(2, 30)),
)
"""Days here would be those of films, releases and the key of all pseudonyms."""
SHAPE: Schema = exact(Rules={**array(RULE), "maxItems": 1})


def find_lifecycle_problems(configuration: Any) -> list[str]:
    """Return what is wrong with the rules by which objects of the bucket end."""
    errors = Draft202012Validator(SHAPE).iter_errors(configuration)
    return [error.message[:200] for error in errors] or _find_request_errors(configuration)


def _find_request_errors(configuration: dict[str, Any]) -> list[str]:
    """Return what the AWS command itself would refuse."""
    model = botocore.session.get_session().get_service_model("s3")
    shape = model.operation_model("PutBucketLifecycleConfiguration").input_shape
    request = {"Bucket": "hospital-hipray", "LifecycleConfiguration": configuration}
    said = str(ParamValidator().validate(request, shape).generate_report())
    return [said] if said else []
