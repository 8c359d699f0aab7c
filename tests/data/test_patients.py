"""One person under two names is one patient; a placeholder in headers joins nobody."""

from hipray.data.patients import join_patients


def test_a_film_known_by_its_header_alone_joins_the_table_name_of_another_film() -> None:
    joined, placeholders = join_patients([("S001", "H1"), ("H1", "H1")])
    assert joined["S001"] == joined["H1"]
    assert placeholders == 0


def test_persons_are_joined_along_a_chain_of_names() -> None:
    joined, _ = join_patients([("a", "H1"), ("b", "H1"), ("b", "H2"), ("c", "H2"), ("d", "H3")])
    assert len({joined[name] for name in ("a", "b", "c", "H1", "H2")}) == 1
    assert joined["d"] != joined["a"]


def test_a_header_shared_by_many_patients_of_the_table_is_a_placeholder() -> None:
    joined, placeholders = join_patients([(name, "ANON") for name in "abcd"])
    assert placeholders == 1
    assert len({joined.get(name, name) for name in "abcd"}) == 4


def test_the_order_of_films_does_not_change_who_is_who() -> None:
    links = [("a", "H1"), ("b", "H1"), ("b", "H2"), ("c", "H2")]
    assert join_patients(links) == join_patients(links[::-1])
