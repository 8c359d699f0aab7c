"""The summary of an output as one HTML page that loads nothing from elsewhere."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def write_page(summary: dict[str, Any], *, letters: str) -> str:
    """Return the page of a summary; `letters` is the key of the table of failed films."""
    environment = Environment(
        loader=PackageLoader("hipray.scoring"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["title"] = _title
    return environment.get_template("summary.html.j2").render(summary=summary, letters=letters)


def _title(column: str) -> str:
    """The name of a column for a person: probability_t_score_total_hip -> t score, total hip."""
    words = column.removeprefix("probability_").replace("_", " ")
    return words.removesuffix(" probability")
