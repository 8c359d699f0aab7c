"""Golden answers: what a model must say of one phantom film, checked wherever it is loaded.

The film is decoded and framed anew at every check, so a codec or a library that changes pixels is
found before a patient's film meets it. No film of a person is in a bundle.
"""

import io
from functools import cache

import numpy as np
import numpy.typing as npt

from hipray.bundles.bundle import ONNX_FILE, WEIGHTS_FILE, Bundle, load_bundle
from hipray.bundles.networks import Model, build_model
from hipray.classification.classifier import Classifier
from hipray.classification.spec import ClassifierSpec
from hipray.config.phantom import PhantomConfig
from hipray.data.framing import Pixels, frame_hip
from hipray.data.images import read_hips
from hipray.data.person import Person, encode_people
from hipray.data.phantom import film_path, plan_archive, write_study
from hipray.errors import BundleError
from hipray.segmentation.segmenter import Segmenter
from hipray.storage import Store
from hipray.vocab import Precision, Sex

GOLDEN_FILM = "golden-film.dcm"
GOLDEN_ANSWERS = "golden.npz"
GREY_LEVELS = 1
"""Largest difference of a decoded pixel: codecs may round differently."""
TOLERANCE = 1e-3
"""Largest difference of log odds or confidence: other processors sum in other orders."""
BFLOAT16_SLACK = 4
"""Times the change that bfloat16 made when it was measured: log odds are a difference of two
answers, and this film is another one."""

GOLDEN_PERSON = Person(Sex.FEMALE, age=70.0, weight_kg=60.0, height_cm=160.0)
"""Who a network with covariates is told the golden film shows."""

Answers = dict[str, npt.NDArray[np.generic]]


@cache
def draw_golden_film() -> bytes:
    """Return the phantom film of every bundle, as DICOM."""
    config = PhantomConfig(
        seed=1, n_patients=1, n_second_hips=0, n_device_a=0, image_px=192, exact_prevalence=False
    )
    study = plan_archive(config)[0]
    return write_study(config, study)[film_path(config, study)]


def read_golden_hip(film: bytes) -> Pixels:
    """Return the canonical pixels of the golden film."""
    result = read_hips(film, name="golden film")
    if len(result.hips) != 1:
        raise BundleError(
            "one hip on the golden film", f"{result.refusal}", "repair the image decoders"
        )
    return result.hips[0].pixels


def answer_golden(bundle: Bundle, film: bytes, model: Model | None = None) -> Answers:
    """Return what the bundle's model says of the golden film; by default torch's, on CPUs."""
    model = model or build_model(bundle)
    pixels = read_golden_hip(film)
    frame = frame_hip(pixels, bundle.description.model.working_px)[None]
    if isinstance(model, Classifier):
        return {"pixels": pixels, "log_odds": model(frame, encode_people([GOLDEN_PERSON]))}
    segmentation = Segmenter([model])(frame)
    return {
        "pixels": pixels,
        "confidence": segmentation.confidence,
        "area": segmentation.masks.mean((2, 3)),
    }


def dump_answers(answers: Answers) -> bytes:
    """Return golden answers as an npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **answers)  # type: ignore[arg-type]
    return buffer.getvalue()


def check_golden(
    bundle: Bundle, model: Model | None = None, *, precision: Precision = Precision.FLOAT32
) -> None:
    """Raise BundleError unless this machine decodes and answers the golden film as published.

    `model` is the bundle's as it will be used; by default torch's, on CPUs.
    """
    found = answer_golden(bundle, bundle.files[GOLDEN_FILM], model)
    tolerance = _tolerance(bundle, precision)
    for name, wanted in _read_answers(bundle).items():
        allowed = GREY_LEVELS if name == "pixels" else tolerance
        _check_answer(bundle, name, found[name], wanted, allowed)


def check_decoding(store: Store, digest: str) -> None:
    """Raise BundleError unless this machine decodes a bundle's golden film as published.

    For where films are decoded and networks are not loaded.
    """
    bundle = load_bundle(store, digest, leave_out={WEIGHTS_FILE, ONNX_FILE})
    found = read_golden_hip(bundle.files[GOLDEN_FILM])
    _check_answer(bundle, "pixels", found, _read_answers(bundle)["pixels"], GREY_LEVELS)


def _read_answers(bundle: Bundle) -> Answers:
    with np.load(io.BytesIO(bundle.files[GOLDEN_ANSWERS]), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _check_answer(
    bundle: Bundle,
    name: str,
    found: npt.NDArray[np.generic],
    wanted: npt.NDArray[np.generic],
    allowed: float,
) -> None:
    difference = largest_difference(found, wanted)
    if difference > allowed:
        raise BundleError(
            f"the golden {name} of {bundle.description.name} within {allowed}",
            f"a difference of {difference:.4g}",
            "use the software versions of its bundle.json, or train and publish it again",
        )


def _tolerance(bundle: Bundle, precision: Precision) -> float:
    known = bundle.description.bfloat16_difference
    if precision is Precision.FLOAT32 or known is None:
        return TOLERANCE
    return max(TOLERANCE, BFLOAT16_SLACK * known * _slope(bundle))


def _slope(bundle: Bundle) -> float:
    """How much the golden answer moves with the network's: log odds of a score move faster."""
    model = bundle.description.model
    if not isinstance(model, ClassifierSpec) or model.odds.score is None:
        return 1.0
    return float(np.ptp(model.odds.score.log_odds(np.array([0.0, 1.0]))))


def largest_difference(found: npt.NDArray[np.generic], wanted: npt.NDArray[np.generic]) -> float:
    """Return the largest absolute difference of two arrays; infinite where their shapes differ."""
    if found.shape != wanted.shape:
        return float("inf")
    return float(np.max(np.abs(found.astype(np.float64) - wanted.astype(np.float64)), initial=0))
