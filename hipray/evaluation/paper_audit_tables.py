"""Lay out the audit of the paper's tables, with the caveats that follow from it."""

from hipray.evaluation.intervals import exact_interval
from hipray.evaluation.layout import (
    DASH,
    LABEL_TITLES,
    VARIANT_TITLES,
    Block,
    Entry,
    Row,
    TableView,
)
from hipray.evaluation.paper import CLASSIFIER_TABLES, TEST_HIPS
from hipray.evaluation.paper_audit import PaperAudit, PaperRow
from hipray.vocab import Backbone, Region, Variant

TABLES = tuple(dict.fromkeys(CLASSIFIER_TABLES.values()))


def build_audit_tables(audit: PaperAudit) -> list[TableView]:
    """Lay out the implied prevalences, every test row and the networks' balanced accuracies."""
    return [_build_prevalences(audit), _build_rows(audit), _build_networks(audit)]


def build_caveats(audit: PaperAudit) -> list[str]:
    """Return what a reader must know about the paper's numbers, computed where that is possible."""
    compared = [r for r in audit.test_rows if r.cell.variant is not Variant.SEGMENTED]
    low = [r for r in audit.at_majority if r in compared]
    return [
        _describe_sampling(),
        f"{len(audit.test_rows) - len(audit.one_run)} of the {len(audit.test_rows)} test rows of "
        f"Tables 6 to 10 cannot come from one run on {_list_sizes()} images: the numbers are means "
        "over several runs, whose number and spread are not stated.",
        f"{len(low)} of the {len(compared)} test rows of Tables 6 to 9 do not beat calling every "
        "hip by the majority.",
        *_list_notes(audit),
        _name_leaders(audit),
        "139 images come from 134 patients and the split is never said to be by patient, so both "
        "hips of one patient may stand on both sides.",
        "The augmented arm takes seven times the optimiser steps of the original arm: what "
        "augmentation does and what longer training does cannot be told apart.",
        "The IoU of .50 for femoral neck and total hip with both networks is what an empty mask "
        "scores as the mean of foreground and background IoU; ours is the foreground's alone.",
    ]


def _describe_sampling() -> str:
    shown = [
        f"{k}/{n} = {k / n:.2f} has an exact 95 % interval of {low:.2f} to {high:.2f}"
        for n in sorted(set(TEST_HIPS.values()), reverse=True)
        for k in [round(0.74 * n)]  # the best accuracies of Tables 8 and 9
        for low, high in [exact_interval(k, n)]
    ]
    return (
        f"The paper tests on {_list_sizes()} hips: an accuracy of {', one of '.join(shown)}. This "
        "exceeds nearly all differences between its rows."
    )


def _list_sizes() -> str:
    return " or ".join(str(n) for n in sorted(set(TEST_HIPS.values()), reverse=True))


def _list_notes(audit: PaperAudit) -> list[str]:
    doubted = (*audit.pasted, *audit.impossible_f1, *audit.misprinted)
    return [
        f"{_name_row(row)}, {row.split}. {audit.get_note(row.cell, row.split)}" for row in doubted
    ]


def _name_leaders(audit: PaperAudit) -> str:
    """Say which network leads each table by mean balanced accuracy."""
    leaders = []
    for table in TABLES:
        means = {b: audit.mean_balanced_accuracy(table, b) for b in Backbone}
        found = {b: mean for b, mean in means.items() if mean is not None}
        if len(found) == len(Backbone):
            leader = max(found, key=lambda b: found[b])
            leaders.append(f"{leader} in Table {table} ({found[leader]:.2f})")
    return f"By balanced accuracy over the regions no one network is best: {', '.join(leaders)}."


def _build_prevalences(audit: PaperAudit) -> TableView:
    rows = tuple(
        Row(
            f"{region.display_name}, {LABEL_TITLES[label_type]}",
            f"{found.n_rows} test rows",
            (
                Entry(f"{found.value:.3f}"),
                Entry(_format_range(found.low, found.high, digits=3)),
                Entry(f"{found.majority:.2f}"),
            ),
        )
        for (region, label_type), found in audit.prevalences.items()
    )
    return TableView(
        anchor="audit-prevalence",
        title="Share of abnormal test hips that the paper's rows imply",
        caption="From accuracy = p sensitivity + (1 - p) specificity over all networks and "
        "variants, pasted rows left out. Feasible: what rounding to two decimals leaves for every "
        "row.",
        columns=("p, least squares", "Feasible", "Accuracy of the majority class"),
        blocks=(Block("Region and label", rows),),
    )


def _build_rows(audit: PaperAudit) -> TableView:
    blocks = tuple(
        Block(
            f"Table {table}",
            tuple(_build_row(row, audit) for row in audit.test_rows if row.table == table),
        )
        for table in TABLES
    )
    return TableView(
        anchor="audit-rows",
        title="The paper's test rows, checked",
        caption="The interval is the exact binomial one of the nearest count on the paper's test "
        "hips. One run: whether any confusion matrix of that many hips gives all four numbers.",
        columns=(
            "Accuracy (95 % interval)",
            "Majority class",
            "Above majority",
            "One run",
            "Doubt",
        ),
        blocks=blocks,
    )


def _build_row(row: PaperRow, audit: PaperAudit) -> Row:
    n = TEST_HIPS[row.cell.region]
    low, high = exact_interval(round(row.accuracy * n), n)
    return Row(
        _name_row(row),
        f"{n} hips",
        (
            Entry(f"{row.accuracy:.2f} ({_format_range(low, high)})"),
            Entry(f"{audit.prevalences[row.site].majority:.2f}"),
            Entry("no" if row in audit.at_majority else "yes"),
            Entry("possible" if row in audit.one_run else "impossible"),
            Entry(audit.get_note(row.cell, row.split) or DASH),
        ),
    )


def _build_networks(audit: PaperAudit) -> TableView:
    rows = tuple(
        Row(
            backbone,
            "",
            tuple(
                Entry(DASH if mean is None else f"{mean:.3f}")
                for table in TABLES
                for mean in [audit.mean_balanced_accuracy(table, backbone)]
            ),
        )
        for backbone in Backbone
    )
    return TableView(
        anchor="audit-networks",
        title="Balanced accuracy of the paper's networks",
        caption=f"Mean of (sensitivity + specificity) / 2 over the test rows of the {len(Region)} "
        "regions; Table 10 has one row per network.",
        columns=tuple(f"Table {table}" for table in TABLES),
        blocks=(Block("Network", rows),),
    )


def _name_row(row: PaperRow) -> str:
    words = (row.cell.backbone, row.cell.region.display_name.lower())
    return (
        f"{', '.join(words)}, {LABEL_TITLES[row.cell.label_type]}, "
        f"{VARIANT_TITLES[row.cell.variant]}"
    )


def _format_range(low: float, high: float, *, digits: int = 2) -> str:
    return DASH if low != low else f"{low:.{digits}f}–{high:.{digits}f}"
