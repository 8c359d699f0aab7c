"""Golden answers: what a model must say of one phantom film, checked wherever it is loaded.

The film is decoded and framed anew at every check, so a codec or a library that changes pixels is
found before a patient's film meets it. No film of a person is in a bundle.
"""

import io

import numpy as np
import numpy.typing as npt
import torch

from hipray.bundles.bundle import Bundle
from hipray.bundles.networks import build_classifier, build_segmenter_part
from hipray.config.phantom import PhantomConfig
from hipray.data.framing import Pixels, frame_hip
from hipray.data.images import read_hips
from hipray.data.person import Person, encode_people
from hipray.data.phantom import film_path, plan_archive, write_study
from hipray.errors import BundleError
from hipray.segmentation.segmenter import Segmenter
from hipray.vocab import Sex

GOLDEN_FILM = "golden-film.dcm"
GOLDEN_ANSWERS = "golden.npz"
GREY_LEVELS = 1
"""Largest difference of a decoded pixel: codecs may round differently."""
TOLERANCE = 1e-3
"""Largest difference of log odds or confidence: other processors sum in other orders."""

GOLDEN_PERSON = Person(Sex.FEMALE, age=70.0, weight_kg=60.0, height_cm=160.0)
"""Who a network with covariates is told the golden film shows."""

Answers = dict[str, npt.NDArray[np.generic]]


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


def answer_golden(bundle: Bundle, film: bytes) -> Answers:
    """Return what the bundle's model says of the golden film."""
    pixels = read_golden_hip(film)
    frame = frame_hip(pixels, bundle.description.model["working_px"])[None]
    if bundle.description.kind == "classifier":
        people = encode_people([GOLDEN_PERSON])
        return {"pixels": pixels, "log_odds": build_classifier(bundle)(frame, people)}
    segmentation = Segmenter([build_segmenter_part(bundle)])(frame)
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


@torch.inference_mode()
def check_golden(bundle: Bundle) -> None:
    """Raise BundleError unless this machine decodes and answers the golden film as published."""
    with np.load(io.BytesIO(bundle.files[GOLDEN_ANSWERS]), allow_pickle=False) as archive:
        expected = {name: archive[name] for name in archive.files}
    found = answer_golden(bundle, bundle.files[GOLDEN_FILM])
    for name, wanted in expected.items():
        allowed = GREY_LEVELS if name == "pixels" else TOLERANCE
        difference = _largest_difference(found[name], wanted)
        if difference > allowed:
            raise BundleError(
                f"the golden {name} of {bundle.description.name} within {allowed}",
                f"a difference of {difference:.4g}",
                "use the software versions of its bundle.json, or train and publish it again",
            )


def _largest_difference(found: npt.NDArray[np.generic], wanted: npt.NDArray[np.generic]) -> float:
    if found.shape != wanted.shape:
        return float("inf")
    return float(np.max(np.abs(found.astype(np.float64) - wanted.astype(np.float64)), initial=0))
