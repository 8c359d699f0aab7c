"""A card says what a model is, learned from and must not be used for."""

from hipray import RESEARCH_NOTICE
from hipray.bundles.card import write_card
from hipray.vocab import DataSource


def test_a_card_of_phantoms_says_that_its_numbers_mean_no_patient(published) -> None:
    card = write_card(published.description)
    assert RESEARCH_NOTICE in card
    assert "It learned from generated phantoms; its numbers say nothing of patients." in card
    assert "| n_train | 20 |" in card


def test_a_card_of_real_films_does_not_call_them_phantoms(published) -> None:
    real = published.description.model_copy(update={"data_source": DataSource.REAL})
    assert "phantom" not in write_card(real)


def test_an_overridden_leak_guard_is_said_in_bold(published) -> None:
    leaky = published.description.model_copy(update={"leaks_allowed": True})
    assert "**The leakage guard was overridden" in write_card(leaky)
    assert "overridden" not in write_card(published.description)


def test_a_tuned_model_tested_on_hips_that_tuned_it_says_so(published) -> None:
    tuned = published.description.model_copy(update={"optimistic": "fold 0 chose the settings."})
    assert "optimistic: fold 0 chose the settings." in write_card(tuned)
    assert "optimistic" not in write_card(published.description)


def test_what_is_not_known_is_not_left_out(published) -> None:
    assert write_card(published.description).count("NOT PROVIDED") == 4
