import numpy as np
import pytest

from hipray.config.phantom import PhantomConfig
from hipray.data.phantom import plan_archive, render_study
from hipray.data.phantom.furniture import draw_furniture, sample_furniture
from hipray.data.phantom.streams import open_stream
from hipray.vocab import Side


def sample_many(shortcut: float) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(1000) % 2 == 0
    samples = [
        sample_furniture(open_stream(number), shortcut=shortcut, osteoporotic=bool(label))
        for number, label in enumerate(labels)
    ]
    return labels, np.array([[s.marker_high, s.ruler, sum(s.border) > 0] for s in samples])


def test_furniture_tells_nothing_about_the_label_by_default() -> None:
    labels, furniture = sample_many(shortcut=0)
    differences = furniture[labels].mean(axis=0) - furniture[~labels].mean(axis=0)
    assert np.abs(differences).max() < 0.1


def test_the_shortcut_makes_marker_and_ruler_tell_the_label_and_nothing_else() -> None:
    labels, furniture = sample_many(shortcut=0.9)
    agreement = (furniture == labels[:, None]).mean(axis=0)
    assert agreement[:2].min() > 0.9
    assert abs(agreement[2] - 0.5) < 0.1


def test_the_label_changes_no_pixel_without_a_shortcut() -> None:
    stream_of = lambda: open_stream("film")  # noqa: E731
    first, second = (
        sample_furniture(stream_of(), shortcut=0, osteoporotic=label) for label in (False, True)
    )
    assert first == second


def test_the_shortcut_changes_the_furniture_and_not_the_hip() -> None:
    plain = PhantomConfig(n_patients=6, n_second_hips=0, n_device_a=0, image_px=128)
    trapped = plain.model_copy(update={"shortcut": 1.0})
    changed = 0
    for study in plan_archive(plain):
        first, second = (render_study(c, study) for c in (plain, trapped))
        differs = first.film != second.film
        changed += bool(differs.any())
        assert not differs[first.masks[3]].any()
    assert changed


@pytest.mark.parametrize("side", [Side.LEFT, Side.RIGHT])
def test_a_side_marker_is_drawn_on_a_blank_film(side) -> None:
    blank = np.zeros((128, 128), np.float32)
    furniture = sample_furniture(open_stream(1), shortcut=0, osteoporotic=False)
    drawn = draw_furniture(blank, furniture, side=side, spacing_mm=1.3)
    assert drawn.max() > 0.5
    assert blank.max() == 0
