"""Write a report as one HTML page that loads nothing from elsewhere."""

import base64

from jinja2 import Environment, PackageLoader, StrictUndefined

from hipray.evaluation.document import Document
from hipray.evaluation.gallery import Picture


def write_page(document: Document, *, embed_figures: bool) -> str:
    """Return the document as HTML, its figures inside the page or linked beside it."""
    environment = Environment(
        loader=PackageLoader("hipray.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("report.html.j2")
    return template.render(document=document, locate=_embed if embed_figures else _link)


def _embed(picture: Picture) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.png).decode("ascii")


def _link(picture: Picture) -> str:
    return picture.path
