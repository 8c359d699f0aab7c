"""Lay results out as the paper's tables, ours beside the paper's, ready for a template."""

from collections.abc import Sequence
from dataclasses import dataclass

from hipray.evaluation.counts import COUNTED_VARIANTS, RegionCounts
from hipray.evaluation.layout import (
    DASH,
    LABEL_TITLES,
    VARIANT_TITLES,
    Block,
    Entry,
    Row,
    TableView,
    describe_hips,
    format_interval,
    format_number,
    format_spread,
)
from hipray.evaluation.paper import CLASSIFIER_TABLES, PaperTables, Split
from hipray.evaluation.paper_audit import PaperAudit
from hipray.evaluation.results import CellResult
from hipray.evaluation.segmenters import Overlap, SegmenterResult
from hipray.evaluation.statistics import CELL_METRICS, PAPER_METRICS, Metric
from hipray.vocab import Cell, DataSource, LabelType, Region, SegmenterArch, Variant


@dataclass(frozen=True)
class _Beside:
    """The paper's numbers with the doubts about them that a table footnotes."""

    paper: PaperTables
    audit: PaperAudit
    footnotes: tuple[str, ...]


BESIDE_PAPER = " (to be set beside the paper's mean over runs)"
_CELL_HEADINGS = tuple(
    f"{metric.heading}, {split}"
    for metric in CELL_METRICS
    for split in Split
    if metric in PAPER_METRICS or split is Split.TEST
)


def build_count_table(
    counts: Sequence[RegionCounts], paper: PaperTables, source: DataSource
) -> TableView:
    """Lay out Table 1: labelled hips, and training images per fit beside the paper's."""
    return TableView(
        anchor="table-1",
        title=f"Table 1. Hips and training images ({source} data)",
        caption="Training images are the mean over fits, as the fits record them.",
        columns=(
            *(
                f"{words}, {LABEL_TITLES[label_type]} label"
                for label_type in LabelType
                for words in ("Hips", "Abnormal")
            ),
            *(f"Train images, {VARIANT_TITLES[variant]}" for variant in COUNTED_VARIANTS),
        ),
        blocks=(Block("Regions", tuple(_count_row(region, paper) for region in counts)),),
    )


def build_segmenter_table(
    results: Sequence[SegmenterResult], paper: PaperTables, source: DataSource
) -> TableView:
    """Lay out Table 5: foreground IoU and Dice per region, network beside network."""
    found = {(result.region, result.arch): result for result in results}
    blocks = tuple(
        Block(
            region.display_name,
            tuple(
                _segmenter_row(found[region, arch], paper)
                for arch in SegmenterArch
                if (region, arch) in found
            ),
            "" if any((region, arch) in found for arch in SegmenterArch) else "Not segmented.",
        )
        for region in Region
    )
    return TableView(
        anchor="table-5",
        title=f"Table 5. Segmentation ({source} data)",
        caption="Foreground overlap per hip, out of fold, with interval over patients. The paper's "
        "IoU may count the background.",
        columns=("IoU", "Dice", "Background IoU"),
        blocks=blocks,
    )


def build_cell_table(
    variant: Variant,
    label_type: LabelType,
    results: Sequence[CellResult],
    *,
    paper: PaperTables,
    audit: PaperAudit,
    source: DataSource,
) -> TableView:
    """Lay out one of Tables 6 to 10, or one beyond them: a block per region, a row per network."""
    number = CLASSIFIER_TABLES.get((variant, label_type))
    own = [r for r in results if (r.cell.variant, r.cell.label_type) == (variant, label_type)]
    beside = _Beside(paper, audit, _number_notes(audit, own))
    blocks = tuple(
        _cell_block(region, [r for r in own if r.cell.region == region], beside)
        for region in Region
    )
    return TableView(
        anchor=f"table-{number or variant}-{label_type}",
        title=f"{f'Table {number}' if number else 'Beyond the paper'}. "
        f"{VARIANT_TITLES[variant].capitalize()}, {LABEL_TITLES[label_type]} label ({source} data)",
        caption="Test: pooled out-of-fold estimate with interval over patients, below it mean ± SD "
        f"over fits{BESIDE_PAPER if number else ''}. Train: mean ± SD over fits.",
        columns=_CELL_HEADINGS,
        blocks=blocks,
        footnotes=beside.footnotes,
    )


def _count_row(counts: RegionCounts, paper: PaperTables) -> Row:
    labelled = [
        Entry(str(number[label_type]))
        for label_type in LabelType
        for number in (counts.labelled, counts.abnormal)
    ]
    trained = [_train_entry(counts, variant, paper) for variant in COUNTED_VARIANTS]
    return Row(counts.region.display_name, "", (*labelled, *trained))


def _train_entry(counts: RegionCounts, variant: Variant, paper: PaperTables) -> Entry:
    images = paper.get_train_images(counts.region, variant)
    ours = counts.train_images.get(variant)
    return Entry(
        "not run" if ours is None else f"{ours:.0f}",
        paper=DASH if images is None else f"{images:.0f}",
    )


def _segmenter_row(result: SegmenterResult, paper: PaperTables) -> Row:
    iou = paper.get_iou(result.region, result.arch)
    entries = [
        Entry(
            format_interval(result.overlaps[overlap]) if overlap in result.overlaps else DASH,
            paper=format_number(iou) if overlap is Overlap.IOU else None,
        )
        for overlap in Overlap
    ]
    detail = f"{result.n_hips} hips of {result.n_patients} patients"
    return Row(str(result.arch), detail, tuple(entries))


def _cell_block(region: Region, results: Sequence[CellResult], beside: _Beside) -> Block:
    rows = tuple(_cell_row(result, beside) for result in results)
    return Block(region.display_name, rows, "" if rows else "No fit of this region has finished.")


def _cell_row(result: CellResult, beside: _Beside) -> Row:
    entries = []
    for metric in CELL_METRICS:
        if metric in PAPER_METRICS:
            train = format_spread(result.train.get(metric))
            entries.append(_paired_entry(train, "", result.cell, Split.TRAIN, metric, beside))
        test = format_interval(result.pooled[metric])
        spread = format_spread(result.over_fits[metric])
        entries.append(_paired_entry(test, spread, result.cell, Split.TEST, metric, beside))
    return Row(result.cell.backbone, describe_hips(result), tuple(entries))


def _paired_entry(
    ours: str, spread: str, cell: Cell, split: Split, metric: Metric, beside: _Beside
) -> Entry:
    value = beside.paper.get_metric(cell, split, metric)
    note = beside.audit.get_note(cell, split)
    mark = str(beside.footnotes.index(note) + 1) if note and value is not None else ""
    return Entry(ours, spread, format_number(value), mark)


def _number_notes(audit: PaperAudit, results: Sequence[CellResult]) -> tuple[str, ...]:
    """Return the doubts about this table's rows that are shown, in footnote order."""
    notes = [audit.get_note(result.cell, split) for result in results for split in Split]
    return tuple(dict.fromkeys(note for note in notes if note))
