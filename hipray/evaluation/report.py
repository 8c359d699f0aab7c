"""Assemble the report: a page, the same in Markdown, a model card, figures and every number.

A pure function from results to files: equal inputs give equal bytes.
"""

from hipray.evaluation.document import build_document
from hipray.evaluation.evidence import evaluate_all
from hipray.evaluation.gallery import draw_pictures
from hipray.evaluation.inputs import ReportInputs
from hipray.evaluation.markdown import write_markdown
from hipray.evaluation.model_card import write_model_card
from hipray.evaluation.page import write_page
from hipray.evaluation.records import build_number_table


def build_report(inputs: ReportInputs) -> dict[str, bytes]:
    """Return file name to content: the page, report.md, model-card.md, tables.csv and figures.

    Raises DataError where predictions are malformed or the manifest mixes phantoms and films.
    """
    evidence = evaluate_all(inputs)
    overlays = inputs.overlays[: inputs.config.max_overlays]
    pictures = draw_pictures(evidence, overlays=overlays)
    document = build_document(inputs, evidence, pictures)
    page = write_page(document, embed_figures=inputs.config.embed_figures)
    numbers = build_number_table(evidence)
    return {
        "index.html": page.encode("utf-8"),
        "report.md": write_markdown(document).encode("utf-8"),
        "model-card.md": write_model_card(inputs, evidence).encode("utf-8"),
        "tables.csv": numbers.to_csv(index=False, lineterminator="\n").encode("utf-8"),
        **{picture.path: picture.png for picture in pictures},
    }
