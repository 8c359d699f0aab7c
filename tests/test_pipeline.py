"""The pipeline's own arithmetic; its agreement with endpoint and batch is held by their tests."""

from hipray.data.images import read_hips
from hipray.data.person import Person, columns_of, encode_people
from hipray.pipeline import frame_hips
from hipray.vocab import Covariate, Sex
from tests.data.film_files import build_dicom, save_dicom


def test_a_callers_records_come_first_and_the_films_header_fills_in_the_rest() -> None:
    film = read_hips(save_dicom(build_dicom()), name="")  # states a woman of 73 years
    stated = Person(age=50.0, weight_kg=60.0, height_cm=160.0)
    told = frame_hips(film, 64, stated=stated).people
    assert told.tolist() == encode_people([Person(Sex.FEMALE, 50.0, 60.0, 160.0)]).tolist()
    assert told[0, columns_of([Covariate.BMI])][1] == 1.0


def test_a_refused_film_has_no_frames() -> None:
    assert frame_hips(read_hips(b"", name=""), 64, stated=Person()).frames.shape == (0, 64, 64)
