"""The report: complete, marked, safe to open, and the same twice."""

import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hipray import RESEARCH_NOTICE
from hipray.errors import ConfigError
from hipray.evaluation.document import build_document
from hipray.evaluation.evidence import evaluate_all
from hipray.evaluation.figures import trace_roc
from hipray.evaluation.flow import FlowCounts, LeakCheck
from hipray.evaluation.markdown import write_markdown
from hipray.evaluation.model_card import write_model_card
from hipray.evaluation.page import write_page
from hipray.evaluation.paper import CLASSIFIER_TABLES
from hipray.evaluation.report import build_report
from hipray.evaluation.results import read_cell
from hipray.evaluation.run_report import read_statements
from hipray.evaluation.statistics import Sample
from hipray.vocab import Cell, LabelType, Region, Variant

from .conftest import list_fits, predict_cell


@pytest.fixture(scope="module")
def report(report_inputs):
    return build_report(report_inputs)


@pytest.fixture(scope="module")
def lean_inputs(report_inputs):
    """One cell, one repeat and nothing optional: a report in half a second."""
    rows = predict_cell(report_inputs.manifest, report_inputs.members[0], repeats=1)
    return replace(
        report_inputs,
        predictions=rows,
        fits=list_fits(rows),
        segmentation=None,
        overlays=(),
        members=(),
        config=report_inputs.config.model_copy(update={"resamples": 100}),
    )


@pytest.fixture(scope="module")
def lean_report(lean_inputs):
    return build_report(lean_inputs)


@pytest.fixture(scope="module")
def render(lean_inputs):
    """Return a function that renders the lean evidence with other words around them."""
    evidence = evaluate_all(lean_inputs)

    def render(**changes):
        inputs = replace(lean_inputs, **changes)
        document = build_document(inputs, evidence, ())
        return {
            "index.html": write_page(document, embed_figures=True),
            "report.md": write_markdown(document),
            "model-card.md": write_model_card(inputs, evidence),
        }

    return render


@pytest.fixture(scope="module")
def page(report):
    return report["index.html"].decode("utf-8")


@pytest.fixture(scope="module")
def numbers(report):
    return pd.read_csv(io.BytesIO(report["tables.csv"]), keep_default_na=False, na_values=[""])


class TagBalance(HTMLParser):
    """Collects tags that are never closed or close nothing."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self):
        super().__init__()
        self.open, self.wrong = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def test_the_page_says_what_it_is_and_on_which_data(page) -> None:
    assert page.count(RESEARCH_NOTICE) == 2
    assert page.index(RESEARCH_NOTICE) < page.index("<h1>")
    assert "66 hips (images) of 60 patients" in page
    assert "generated phantoms" in page
    titles = re.findall(
        r'<h2 id="(?:table|baselines|calibration|decisions|subgroups)[^>]*>(.*?)</h2>', page
    )
    assert len(titles) == 8
    assert all("(phantom data)" in title for title in titles)


def test_the_page_is_well_formed_and_loads_nothing_from_elsewhere(page) -> None:
    balance = TagBalance()
    balance.feed(page)
    assert (balance.open, balance.wrong) == ([], [])
    assert "<script" not in page
    assert "http" not in re.sub(r'"data:image[^"]*"', "", page)
    assert set(re.findall(r'src="([^:]*):', page)) == {"data"}
    assert 'name="viewport"' in page


def test_flow_protocol_and_leak_check_are_shown(page) -> None:
    for text in ("unreadable: 3; implant: 1", "device reports no such region: 33"):
        assert text in page
    assert "patient-grouped 5-fold" in page
    assert "0 pairs of one patient, 0 duplicates, 0 near-duplicates" in page
    assert "overridden" not in page


def test_an_overridden_leak_check_is_a_banner(render) -> None:
    leak = LeakCheck(patients_shared=5, duplicates=1, near_duplicates=2, overridden=True)
    page = render(leak=leak)["index.html"]
    assert '<p class="banner">The leakage guard was overridden' in page
    assert "share 5 same-patient, 1 duplicate and 2 near-duplicate pairs" in page


def test_files_that_nobody_accounts_for_are_shown(render) -> None:
    flow = FlowCounts(found=10, accepted=7, refused={}, dropped={})
    assert "3 neither accepted nor refused" in render(flow=flow)["index.html"]


def test_paper_cells_stand_beside_ours_with_their_footnote(page) -> None:
    table = page.split('id="table-6-t_score"')[1].split("</table>")[0]
    assert "paper 0.58" in table  # sensitivity of VGG16 on the femoral neck
    assert "paper –" in table  # the paper states no AUROC
    doubtful = page.split('id="table-9-bmd"')[1].split("<h2")[0]
    assert "paper 0.74<sup>1</sup>" in doubtful
    assert "an F1 of 0.74 is impossible" in doubtful


def test_missing_parts_are_sentences(lean_report) -> None:
    files = lean_report
    page = files["index.html"].decode()
    for sentence in (
        "Table 5 is absent: no segmenter was scored in this run.",
        "Table 7 (original data, BMD label) is absent",
        "No release was evaluated end to end: no T-score cell of a headline region is done.",
        "Regression is absent: no fit predicted a measured value.",
        "No segmentation overlays were given.",
        "No fit of this region has finished.",
    ):
        assert sentence in page
        assert sentence in files["report.md"].decode()
    assert not any("segmentation" in name or "release" in name for name in files)


def test_foreign_text_is_escaped(render) -> None:
    nasty = render(title="<script>alert(1)</script>", protocol={"<b>": "a | b"})
    assert not any("<script" in text for text in nasty.values())
    assert "&lt;b&gt;" in nasty["index.html"]
    assert "a \\| b" in nasty["report.md"]


def test_the_long_table_has_every_number_with_its_source(numbers, report_inputs) -> None:
    assert list(numbers) == [
        *("table", "region", "label_type", "variant", "model", "split"),
        *("metric", "value", "low", "high", "n", "source", "paper_value"),
    ]
    assert set(numbers["source"]) == {"phantom", "paper"}
    assert set(numbers.loc[numbers["source"] == "paper", "table"]) == {"audit"}
    tables = {"1", "5", "6", "9", "baselines", "ranking", "calibration", "release", "subgroups"}
    tables |= {"decision curve", "worth", "audit"}
    assert set(numbers["table"].astype(str)) == tables
    keys = ["table", "region", "label_type", "variant", "model", "split", "metric"]
    assert not numbers.duplicated(keys).any()
    bounded = numbers.dropna(subset=["low", "high", "value"])
    assert len(bounded) > 100
    assert (bounded["low"] <= bounded["high"] + 1e-12).all()


def test_the_papers_means_stand_beside_our_means_in_the_long_table(numbers) -> None:
    rows = numbers[
        (numbers["table"].astype(str) == "6")
        & (numbers["region"] == "total_hip")
        & (numbers["model"] == "vgg16")
        & (numbers["metric"] == "accuracy_mean_over_fits")
    ].set_index("split")
    assert rows["paper_value"].to_dict() == {"test": 0.69, "train": 0.99}
    assert rows["n"].to_dict() == {"test": 10, "train": 10}


def test_every_figure_is_a_png_that_opens(report) -> None:
    figures = {name: data for name, data in report.items() if name.startswith("figures/")}
    assert len(figures) == 4 + 4 * 3
    for name, data in figures.items():
        image = Image.open(io.BytesIO(data))
        image.load()
        assert image.format == "PNG"
        assert "overlay" in name or min(image.size) > 300


def test_figures_may_stay_outside_the_page(lean_inputs) -> None:
    config = lean_inputs.config.model_copy(update={"embed_figures": False})
    files = build_report(replace(lean_inputs, config=config))
    addresses = re.findall(r'<img src="([^"]*)"', files["index.html"].decode())
    assert set(addresses) == {name for name in files if name.startswith("figures/")}


def test_equal_inputs_give_equal_bytes(lean_inputs, lean_report) -> None:
    assert build_report(lean_inputs) == lean_report


def test_real_films_are_named_so_and_carry_no_phantom_banner(lean_inputs) -> None:
    real = replace(lean_inputs, manifest=lean_inputs.manifest.assign(source="real"))
    files = build_report(real)
    page = files["index.html"].decode()
    assert "(real data)" in page
    assert "phantom" not in page
    assert b"phantom" not in files["tables.csv"]


def test_another_backbone_and_a_single_fold_still_make_a_report(lean_inputs) -> None:
    cell = Cell(Region.TOTAL_HIP, LabelType.BMD, "efficientnet_b0", Variant.SEGMENTED)
    rows = predict_cell(lean_inputs.manifest, cell, repeats=1)
    one = rows[rows["fold"] == 0]
    inputs = replace(lean_inputs, predictions=one, fits=list_fits(one))
    page = build_report(inputs)["index.html"].decode()
    assert "efficientnet_b0" in page
    assert "in 1 fit" in page
    assert not re.search(r"\bnan\b", re.sub(r'"data:image[^"]*"', "", page))


def test_cells_that_the_paper_does_not_have_stand_in_a_table_beyond_it(
    lean_inputs, monkeypatch
) -> None:
    for key in [key for key in CLASSIFIER_TABLES if key[1] is LabelType.T_SCORE]:
        monkeypatch.delitem(CLASSIFIER_TABLES, key)
    files = build_report(lean_inputs)
    assert "Beyond the paper. " in files["index.html"].decode()
    numbers = pd.read_csv(io.BytesIO(files["tables.csv"]), keep_default_na=False)
    assert (numbers["table"] == "beyond").any()


def test_an_roc_curve_runs_from_corner_to_corner_and_its_area_is_the_auroc() -> None:
    labels = np.array([0, 1, 0, 1, 1], bool)
    scores = np.array([0.2, 0.2, 0.4, 0.6, 0.9])
    false_rate, true_rate = trace_roc(Sample(labels, scores, scores >= 0.5))
    assert (false_rate[0], true_rate[0], false_rate[-1], true_rate[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(true_rate, false_rate) == pytest.approx(4.5 / 6)


def test_the_report_says_first_what_the_results_are_worth(report, page) -> None:
    first = page.split("<h2 id=")[1]
    assert first.startswith('"worth">What these results are worth')
    assert "beat age and sex and a constant by AUROC" in first
    assert "66 hips of 60 patients" in first
    assert "7 of 72 cells, 70 fits" in first
    assert report["report.md"].decode().index("What these results are worth") < 600


def test_a_run_of_random_scores_says_that_nothing_beats_the_baseline(lean_inputs) -> None:
    cell = read_cell(lean_inputs.predictions)
    noise = predict_cell(lean_inputs.manifest, cell, strength=0.0, repeats=1)
    files = build_report(replace(lean_inputs, predictions=noise, fits=list_fits(noise)))
    for name in ("index.html", "report.md", "model-card.md"):
        assert "Nothing here beats the baseline" in files[name].decode()


def test_markdown_and_page_hold_the_same_tables(report, page) -> None:
    markdown = report["report.md"].decode()
    assert markdown.count("\n| --- |") == page.count("<table>")
    assert markdown.count(RESEARCH_NOTICE) == 2
    assert "<script" not in markdown
    links = set(re.findall(r"\]\((figures/[^)]*)\)", markdown))
    assert links == {name for name in report if name.startswith("figures/")}


def test_every_row_of_a_markdown_table_is_as_wide_as_its_header(report) -> None:
    for name in ("report.md", "model-card.md"):
        for block in report[name].decode().split("\n\n"):
            lines = [line for line in block.splitlines() if line.startswith("|")]
            widths = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
            assert len(widths) <= 1


def test_optimistic_results_are_called_so_everywhere(render, lean_report) -> None:
    reason = "hyperparameters were tuned on hips that are tested here."
    for text in render(optimistic=reason).values():
        assert f"The results are optimistic: {reason}" in text
    assert b"optimistic" not in lean_report["index.html"]


def test_planned_cells_are_counted_not_assumed(lean_inputs) -> None:
    page = build_report(replace(lean_inputs, planned_cells=12))["index.html"].decode()
    assert "1 of 12 planned cells" in page
    assert "of 72 cells" not in page


def test_a_release_that_cannot_be_evaluated_leaves_the_cells_standing(lean_inputs) -> None:
    bare = lean_inputs.manifest.assign(t_femoral_neck=np.nan, label_t_score_femoral_neck=None)
    members = (read_cell(lean_inputs.predictions),)
    page = build_report(replace(lean_inputs, manifest=bare, members=members))["index.html"]
    assert b"No release was evaluated end to end: expected a fold that every member" in page
    assert b'id="table-6-t_score"' in page


def test_a_regression_has_its_table(lean_inputs) -> None:
    rows = lean_inputs.predictions
    values = rows.assign(measured=rows["score"], predicted=rows["score"] * 0.9)
    files = build_report(replace(lean_inputs, predictions=values))
    assert 'id="regression"' in files["index.html"].decode()
    assert (
        b"regression,femoral_neck,t_score,original,vgg16,test,pearson_r,1.0" in files["tables.csv"]
    )


def test_small_subgroups_of_the_release_are_suppressed(page) -> None:
    table = page.split('id="subgroups"')[1]
    assert "too few" in table.split("</table>")[0]
    assert "Groups of fewer than 10 patients, or of fewer than 5 of a class" in table


def test_what_only_people_can_tell_stands_in_the_card(render) -> None:
    stated = read_statements({"ethics": "Approved by the board of the hospital."})
    card = render(statements=stated)["model-card.md"]
    assert "Approved by the board of the hospital." in card
    assert "NOT PROVIDED" not in next(row for row in card.splitlines() if "Ethical" in row)


def test_a_topic_that_no_card_has_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"found 'ethnics'"):
        read_statements({"ethnics": "x"})
