"""One film in this process: the answer as data, and the film with its contours as PNG."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hipray.answers import answer_as_dict
from hipray.config.jobs import PredictRun
from hipray.data.isolation import IsolatedReader
from hipray.data.person import Person
from hipray.inference import start_pipeline
from hipray.overlay import draw_overlay
from hipray.releases.engines import choose_engine
from hipray.releases.release import read_servable
from hipray.runtime.devices import find_device
from hipray.storage import open_file, open_store


@dataclass(frozen=True)
class Prediction:
    """An answer, and a picture of the hips it is about (None for a refused film)."""

    answer: dict[str, Any]
    overlay: bytes | None


def run_predict(config: PredictRun) -> Prediction:
    """Score one file with a release; raises NotFoundError where there is no file."""
    store = open_store(config.workspace, config.storage)
    release = read_servable(store, config.release, allow_phantom=config.allow_phantom_release)
    data = _read_file(config)
    engine = choose_engine(store, release, config, device=find_device(config.runtime))
    pipeline = start_pipeline(store, release, engine, memory_gib=config.memory_gib)
    with IsolatedReader(config.limits, release.preprocessing) as reader:
        result = reader.read_hips(data, name=Path(config.file).name, side=config.side)
    stated = Person(
        sex=config.sex, age=config.age, weight_kg=config.weight_kg, height_cm=config.height_cm
    )
    answers, masks = pipeline.answer_with_masks([result], stated=[stated])
    return Prediction(answer_as_dict(answers[0]), draw_overlay(result, masks, release.working_px))


def _read_file(config: PredictRun) -> bytes:
    store, name = open_file(config.file, config.storage)
    return store.read_object(name, max_bytes=config.limits.max_file_bytes)[0]
