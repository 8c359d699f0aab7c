"""A bundle put together: trained weights, their export, what they must answer, and the card."""

from functools import cache

import numpy as np

from hipray.bundles.bundle import (
    CARD_FILE,
    ONNX_FILE,
    WEIGHTS_FILE,
    Bundle,
    BundleDescription,
    OnnxNote,
    publish_bundle,
)
from hipray.bundles.card import write_card
from hipray.bundles.golden import (
    GOLDEN_ANSWERS,
    GOLDEN_FILM,
    answer_golden,
    draw_golden_film,
    dump_answers,
)
from hipray.bundles.networks import build_model, build_module
from hipray.classification.spec import ClassifierSpec
from hipray.config.phantom import PhantomConfig
from hipray.data.framing import Pixels, frame_hip, resize_square
from hipray.data.images import read_hips
from hipray.data.person import Person, encode_people
from hipray.data.phantom import film_path, plan_archive, write_study
from hipray.runtime.export import Export, Probe, export_network, measure_bfloat16
from hipray.storage import Store
from hipray.vocab import Sex

PROBE_PEOPLE = (
    Person(Sex.FEMALE, age=82.0, weight_kg=50.0, height_cm=158.0),
    Person(Sex.MALE, age=55.0),
    Person(),
)
"""Who networks with covariates are told the probe's films show."""


def publish_model(store: Store, description: BundleDescription, weights: bytes) -> str:
    """Publish a network's weights (safetensors) as a bundle and return its digest.

    The bundle also holds the network for ONNX Runtime, where it can be exported and answers as
    torch does; where it cannot, the bundle says why.
    """
    files = {WEIGHTS_FILE: weights, GOLDEN_FILM: draw_golden_film()}
    bundle = Bundle("", description, files)
    module, probe = build_module(bundle), draw_probe(description)
    export = export_network(module, probe)
    if export.model is not None:
        files[ONNX_FILE] = export.model
    model = build_model(bundle, module=module)
    files[GOLDEN_ANSWERS] = dump_answers(answer_golden(bundle, files[GOLDEN_FILM], model))
    noted = description.model_copy(
        update={
            "onnx": _note(export),
            "bfloat16_difference": _round(measure_bfloat16(module, probe)),
        }
    )
    files[CARD_FILE] = write_card(noted).encode()
    return publish_bundle(store, noted, files)


def draw_probe(description: BundleDescription) -> Probe:
    """Return the phantom films, at the network's own size, that runtimes are compared on."""
    model = description.model
    frames = [frame_hip(hip, model.working_px) for hip in _draw_hips(len(PROBE_PEOPLE))]
    films = resize_square(np.stack(frames), model.settings.size_px)
    told = encode_people(PROBE_PEOPLE) if isinstance(model, ClassifierSpec) else None
    return Probe(films, told)


@cache
def _draw_hips(count: int) -> tuple[Pixels, ...]:
    config = PhantomConfig(
        seed=2, n_patients=count, n_second_hips=0, n_device_a=0, image_px=256,
        exact_prevalence=False,
    )  # fmt: skip
    films = [write_study(config, s)[film_path(config, s)] for s in plan_archive(config)[:count]]
    return tuple(read_hips(film, name="probe").hips[0].pixels for film in films)


def _note(export: Export) -> OnnxNote:
    return OnnxNote(difference=_round(export.difference), reason=export.reason)


def _round(difference: float | None) -> float | None:
    """Two digits: the rest depends on the machine and would make another bundle of it."""
    return None if difference is None else float(f"{difference:.1e}")
