"""Put a report in order: sections of sentences, facts, tables and figures, before any markup."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hipray import RESEARCH_NOTICE
from hipray.data.manifest import label_column
from hipray.evaluation.comparison_tables import build_calibration_table, build_comparison_table
from hipray.evaluation.evidence import Evidence
from hipray.evaluation.extra_tables import (
    build_decision_table,
    build_regression_table,
    build_subgroup_table,
)
from hipray.evaluation.flow import LeakCheck
from hipray.evaluation.gallery import Picture
from hipray.evaluation.inputs import PAPER_CELLS, ReportInputs
from hipray.evaluation.layout import (
    LABEL_TITLES,
    VARIANT_TITLES,
    TableView,
    format_interval,
    format_number,
)
from hipray.evaluation.paper import CLASSIFIER_TABLES
from hipray.evaluation.paper_audit_tables import build_audit_tables, build_caveats
from hipray.evaluation.release_result import ReleaseResult, RivalScores
from hipray.evaluation.results import CellResult
from hipray.evaluation.statistics import Metric
from hipray.evaluation.tables import build_cell_table, build_count_table, build_segmenter_table
from hipray.evaluation.worth import BestCell
from hipray.vocab import DataSource, Variant

HEADLINE_METRICS = (
    *(Metric.AUROC, Metric.SENSITIVITY, Metric.SPECIFICITY, Metric.PPV, Metric.NPV),
    *(Metric.BRIER, Metric.CALIBRATION_SLOPE),
)

Facts = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Section:
    """One part of the report under a heading of its own."""

    anchor: str
    title: str
    paragraphs: tuple[str, ...] = ()
    warning: str = ""  # said loudly, before anything else of the section
    facts: Facts = ()
    bullets: tuple[str, ...] = ()
    tables: tuple[TableView, ...] = ()
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    source: DataSource
    subtitle: str
    notice: str
    banners: tuple[str, ...]
    sections: tuple[Section, ...]


def build_document(
    inputs: ReportInputs, evidence: Evidence, pictures: Sequence[Picture]
) -> Document:
    """Return the report's content in reading order."""
    n_patients = inputs.manifest["patient_id"].nunique()
    return Document(
        title=inputs.title,
        source=evidence.source,
        subtitle=f"{len(inputs.manifest)} hips (images) of {n_patients} patients",
        notice=RESEARCH_NOTICE,
        banners=tuple(list_banners(inputs, evidence.source)),
        sections=tuple(_build_sections(inputs, evidence, pictures)),
    )


def list_banners(inputs: ReportInputs, source: DataSource) -> Iterator[str]:
    """Yield what must be known before any number is read."""
    if source is DataSource.PHANTOM:
        yield (
            "Every number on this page was measured on generated phantoms. None says anything "
            "about patients."
        )
    if inputs.optimistic:
        yield f"The results are optimistic: {inputs.optimistic}"
    leak = inputs.leak
    if leak.overridden:
        yield (
            f"The leakage guard was overridden: training and test share {_describe_leak(leak)} "
            "of images. The test results are too good by an unknown amount."
        )
    elif not leak.clean:
        yield f"The leakage guard found {_describe_leak(leak)} of images between training and test."


def _describe_leak(leak: LeakCheck) -> str:
    return (
        f"{leak.patients_shared} same-patient, {leak.duplicates} duplicate and "
        f"{leak.near_duplicates} near-duplicate pairs"
    )


def _build_sections(
    inputs: ReportInputs, evidence: Evidence, pictures: Sequence[Picture]
) -> Iterator[Section]:
    yield _describe_worth(evidence)
    yield Section("about", "What this is", (_ABOUT,))
    yield Section("flow", "Flow of images", facts=tuple(_list_flow(inputs, evidence)))
    yield Section("protocol", "Protocol", facts=tuple(_list_protocol(inputs, evidence)))
    if evidence.release.result is not None:
        yield _describe_release(evidence.release.result, evidence.source)
    absences = tuple(_list_absences(inputs, evidence))
    if absences:
        yield Section("absent", "Not in this report", bullets=absences)
    for view in _build_tables(inputs, evidence):
        yield Section(view.anchor, view.title, tables=(view,))
    yield Section("figures", "Figures", pictures=tuple(pictures))
    yield Section(
        "audit",
        "Appendix: the paper's own tables, audited",
        ("Computed from the paper's Tables 6 to 10 alone; nothing in them is corrected.",),
        bullets=tuple(build_caveats(evidence.audit)),
    )
    for view in build_audit_tables(evidence.audit):
        yield Section(view.anchor, view.title, tables=(view,))


_ABOUT = (
    "Networks were trained to call a hip radiograph normal or abnormal as DXA does, per region, "
    "following Feng et al. 2023 (doi 10.20944/preprints202310.0483.v1, a preprint, CC BY). Each "
    "number is shown with its interval and its spread over fits; the paper's number stands beside "
    "it, marked as the paper's. Greater trochanter and Ward's triangle have no part in a diagnosis "
    "(ISCD) and are research-only."
)


def _describe_worth(evidence: Evidence) -> Section:
    worth = evidence.worth
    return Section(
        "worth",
        "What these results are worth",
        (worth.verdict,) if worth.n_beating else (),
        warning="" if worth.n_beating else worth.verdict,
        facts=(
            ("Hips and patients tested", f"{worth.n_hips} hips of {worth.n_patients} patients"),
            ("Cells and fits", f"{worth.n_cells} of {worth.n_planned} cells, {worth.n_fits} fits"),
            *(_name_best(best) for best in worth.best),
        ),
    )


def _name_best(best: BestCell) -> tuple[str, str]:
    cell = best.result.cell
    return (
        f"Best, {cell.region.display_name}, {LABEL_TITLES[cell.label_type]}",
        f"{cell.backbone} on {VARIANT_TITLES[cell.variant]}, AUROC "
        f"{format_interval(best.result.pooled[Metric.AUROC])}{_name_choice(best)}; "
        f"{_name_ties(best)}",
    )


def _name_choice(best: BestCell) -> str:
    """A best of many is partly luck, which its own interval does not know."""
    if not best.n_rivals:
        return ""
    return f", chosen among {best.n_rivals + 1} on these hips and not corrected for that"


def _name_ties(best: BestCell) -> str:
    if not best.n_rivals:
        return "no other cell of this region and label has finished"
    if not best.n_compared:
        return f"none of the {best.n_rivals} others has the same fits"
    if not best.ties:
        return f"better than each of the {best.n_compared} others that have the same fits"
    if len(best.ties) == best.n_compared:
        return f"none of the {best.n_compared} others with the same fits can be told apart from it"
    ties = ", ".join(f"{tie.backbone} on {VARIANT_TITLES[tie.variant]}" for tie in best.ties)
    return f"tied with {len(best.ties)} of {best.n_rivals} others: {ties}"


def _list_flow(inputs: ReportInputs, evidence: Evidence) -> Iterator[tuple[str, str]]:
    flow, leak = inputs.flow, inputs.leak
    yield "Found", str(flow.found)
    yield "Accepted", str(flow.accepted)
    yield "Refused", _list_counts(flow.refused)
    if flow.unaccounted:
        yield "Unaccounted", f"{flow.unaccounted} neither accepted nor refused"
    for region, reasons in flow.dropped.items():
        yield f"Dropped, {region.display_name}", _list_counts(reasons)
    yield from _list_uncut(inputs, evidence.cells)
    yield (
        "Leak check",
        f"{leak.patients_shared} pairs of one patient, {leak.duplicates} duplicates, "
        f"{leak.near_duplicates} near-duplicates on both sides of training and test"
        + ("; overridden" if leak.overridden else ""),
    )


def _list_uncut(inputs: ReportInputs, cells: Sequence[CellResult]) -> Iterator[tuple[str, str]]:
    """Labelled hips of a segmented cell's test folds that it has no view of: its figures are those
    of the hips that could be cut out."""
    if inputs.split is None:
        return
    for cell in (c for c in cells if c.cell.variant is Variant.SEGMENTED):
        labels = inputs.manifest[label_column(cell.cell.label_type, cell.cell.region)]
        labelled = set(inputs.manifest.loc[labels.notna(), "hip_id"])
        folds = cell.tests[["repeat", "fold"]].drop_duplicates()
        dealt = labelled & set(inputs.split.merge(folds, on=["repeat", "fold"])["hip_id"])
        missing = len(dealt - set(cell.hips["hip_id"]))
        if missing:
            yield f"Not cut out, {cell.cell.name}", f"{missing} of {len(dealt)} hips"


def _list_counts(counts: Any) -> str:
    return "; ".join(f"{name}: {n}" for name, n in counts.items()) or "none"


def _list_protocol(inputs: ReportInputs, evidence: Evidence) -> Iterator[tuple[str, str]]:
    """Yield what was derived from the results after what the caller states."""
    config, worth = inputs.config, evidence.worth
    splits = inputs.predictions[["repeat", "fold"]].drop_duplicates()
    yield from ((f"{LABEL_TITLES[label]} label", how) for label, how in inputs.labels.items())
    yield from ((str(name), value) for name, value in inputs.protocol.items())
    yield (
        "Splits in these results",
        f"{len(splits)} (repeat, fold) pairs of {splits['repeat'].nunique()} repeats",
    )
    yield (
        "Cells and fits",
        f"{worth.n_cells} of {worth.n_planned} planned cells ({PAPER_CELLS} in the paper's grid), "
        f"{worth.n_fits} fits",
    )
    yield (
        "Intervals",
        f"{config.level:.0%} percentile bootstrap over patients, {config.resamples} "
        f"resamples, seed {config.seed}, on scores averaged over repeats; widened by "
        f"{config.fold_widening:.2f} for the training patients that folds share (Nadeau and "
        "Bengio 2003)",
    )
    yield (
        "Threshold and calibration",
        "never chosen on test hips: on the inner hips of each fit, or fixed by configuration",
    )


def _describe_release(release: ReleaseResult, source: DataSource) -> Section:
    missing, folds = release.n_without_t_score, release.n_folds_without_threshold
    sentences = (
        f"Endpoint: {release.endpoint}. {release.n_hips} hips of {release.n_patients} "
        f"patients, {release.n_positives} positive, out of fold in {release.n_folds} "
        "(repeat, fold) pairs, each by its own ensemble: a release of several folds averages them; "
        f"{len(release.members)} members combined by {release.combine}: "
        f"{', '.join(release.members)}.",
        f"A hip's score is the mean over {release.n_repeats} repeats, whose noise it averages: "
        "a release of one repeat is expected to do worse."
        if release.n_repeats > 1
        else "",
        f"{missing} scored hips lack the T-score that would decide and are left out."
        if missing
        else "",
        f"{folds} folds had inner hips of one class and use a threshold of .5." if folds else "",
        _UNDERSTATED if len(release.members) > 1 else "",
    )
    return Section(
        "release",
        f"Release, end to end ({source} data)",
        tuple(sentence for sentence in sentences if sentence),
        facts=(
            *(
                (metric.heading, format_interval(release.metrics[metric].interval))
                for metric in HEADLINE_METRICS
            ),
            ("Calibration in the large", format_number(release.calibration_in_the_large)),
            ("ECE", format_number(release.ece)),
            *_list_rivals(release.baselines),
        ),
    )


_UNDERSTATED = (
    "The headline probability is the larger of the sites' own. It is at most the chance that "
    "either is low, and so understates it: calibration in the large above 0 says by how much."
)


def _list_rivals(rivals: Sequence[RivalScores]) -> Iterator[tuple[str, str]]:
    for rival in rivals:
        yield f"{rival.title}: AUROC", format_interval(rival.metrics[Metric.AUROC].interval)
        if rival.gain is not None:
            over = f"AUROC of the release less that of {rival.title.lower()}"
            yield over, format_interval(rival.gain.interval)


def _list_absences(inputs: ReportInputs, evidence: Evidence) -> Iterator[str]:
    """Yield one sentence per part that these results do not hold."""
    run = {(c.cell.variant, c.cell.label_type) for c in evidence.cells}
    if not evidence.segmenters:
        yield "Table 5 is absent: no segmenter was scored in this run."
    for (variant, label), number in CLASSIFIER_TABLES.items():
        if (variant, label) not in run:
            yield (
                f"Table {number} ({VARIANT_TITLES[variant]}, {LABEL_TITLES[label]} label) is "
                "absent: no such fit has finished."
            )
    if not evidence.regression:
        yield "Regression is absent: no fit predicted a measured value."
    if evidence.release.absence:
        yield f"{evidence.release.absence} So there are no subgroups either: they are a release's."
    if not inputs.overlays:
        yield "No segmentation overlays were given."


def _build_tables(inputs: ReportInputs, evidence: Evidence) -> Iterator[TableView]:
    source, paper, cells = evidence.source, evidence.paper, evidence.cells
    run = {(c.cell.variant, c.cell.label_type) for c in cells}
    yield build_comparison_table(cells, evidence.baselines, evidence.comparisons, source)
    yield build_count_table(evidence.counts, paper, source)
    if evidence.segmenters:
        yield build_segmenter_table(evidence.segmenters, paper, source)
    for variant, label in dict.fromkeys((*CLASSIFIER_TABLES, *sorted(run))):
        if (variant, label) in run:
            yield build_cell_table(
                variant, label, cells, paper=paper, audit=evidence.audit, source=source
            )
    yield build_calibration_table(cells, evidence.calibrations, source)
    if evidence.regression:
        yield build_regression_table(evidence.regression, source)
    if evidence.decisions:
        yield build_decision_table(evidence.decisions, source)
    if evidence.subgroups:
        yield build_subgroup_table(evidence.subgroups, source, inputs.config)
