"""Write the model card of a run or its release, tagged with CLAIM and TRIPOD+AI item numbers.

What the data cannot answer reads NOT PROVIDED; nothing is made up.
"""

from collections.abc import Mapping

import pandas as pd

from hipray import RESEARCH_NOTICE, __version__
from hipray.evaluation.calibration import CalibrationStage
from hipray.evaluation.checklist import CHECKLIST, Items, Topic
from hipray.evaluation.comparison_tables import STAGE_TITLES
from hipray.evaluation.document import list_banners
from hipray.evaluation.evidence import Evidence
from hipray.evaluation.inputs import ProtocolItem, ReportInputs
from hipray.evaluation.layout import LABEL_TITLES, format_interval
from hipray.evaluation.markdown import escape_markdown, write_table
from hipray.evaluation.statistics import Metric
from hipray.vocab import DataSource, Sex

NOT_PROVIDED = "NOT PROVIDED"

STATED = {
    Topic.PARTITIONS: ProtocolItem.SPLIT,
    Topic.PREPROCESSING: ProtocolItem.MASKS,
    Topic.MODEL: ProtocolItem.CLASSIFIER,
    Topic.TRAINING: ProtocolItem.CLASSIFIER,
    Topic.INITIALISATION: ProtocolItem.START_WEIGHTS,
    Topic.IMBALANCE: ProtocolItem.CLASS_WEIGHTS,
}
"""Topics that the caller's protocol answers, where it does."""

HEADLINE = (Metric.AUROC, Metric.SENSITIVITY, Metric.SPECIFICITY, Metric.CALIBRATION_SLOPE)


def write_model_card(inputs: ReportInputs, evidence: Evidence) -> str:
    """Return the card as Markdown, the research notice on top."""
    answers = answer_topics(inputs, evidence)
    rows = [
        (topic, *_write_items(CHECKLIST[topic]), escape_markdown(answers.get(topic, NOT_PROVIDED)))
        for topic in Topic
    ]
    lines = [
        f"# Model card: {escape_markdown(inputs.title)} ({evidence.source} data)",
        f"**{RESEARCH_NOTICE}**",
        *(f"> **{escape_markdown(banner)}**" for banner in list_banners(inputs, evidence.source)),
        "Tagged with the items of CLAIM (2024) and TRIPOD+AI (2024) that a line answers. "
        f"{NOT_PROVIDED}: the results do not say.",
        write_table(("Topic", "CLAIM", "TRIPOD+AI", "Statement"), rows),
        f"**{RESEARCH_NOTICE}**",
    ]
    return "\n\n".join(lines) + "\n"


def answer_topics(inputs: ReportInputs, evidence: Evidence) -> dict[Topic, str]:
    """Return the statement of every topic that the results can answer."""
    answers = {
        **{t: inputs.protocol[item] for t, item in STATED.items() if item in inputs.protocol},
        **_answer_fixed(inputs, evidence),
        **_answer_archive(inputs, evidence),
        **_answer_method(inputs, evidence),
        **_answer_results(inputs, evidence),
        **inputs.statements,
    }
    return {topic: answer for topic, answer in answers.items() if answer}


def _write_items(items: Items) -> tuple[str, str]:
    return ", ".join(str(item) for item in items.claim), ", ".join(items.tripod)


def _answer_fixed(inputs: ReportInputs, evidence: Evidence) -> dict[Topic, str]:
    """Answer what holds for every run of this software."""
    regions = ", ".join(dict.fromkeys(c.cell.region.display_name for c in evidence.cells))
    return {
        Topic.TITLE: f"{inputs.title}: deep learning on hip radiographs, {evidence.source} data",
        Topic.BACKGROUND: "Research on finding osteoporosis in hip radiographs, after Feng et al. "
        f"2023. Not for clinical use. Intended population: {NOT_PROVIDED}",
        Topic.OBJECTIVES: "Call a hip radiograph normal or abnormal as DXA does, per region: "
        f"{regions}",
        Topic.GOAL: "Development with internal evaluation, exploratory",
        Topic.PREDICTORS: "The pixels of one hip radiograph, in the segmented variant those inside "
        "a predicted or given mask. Covariates: "
        + inputs.protocol.get(ProtocolItem.COVARIATES, NOT_PROVIDED),
        Topic.SOFTWARE: f"hipray {__version__}",
        Topic.OUTPUT: "A probability per region and label, and a decision; chosen on inner "
        f"hips, never on test hips: {inputs.protocol.get(ProtocolItem.SELECTION, NOT_PROVIDED)}",
        Topic.METRICS: f"{', '.join(metric.heading for metric in Metric)}, calibration "
        "intercept, calibration in the large, expected calibration error, net benefit",
        Topic.INTERNAL: "Out of fold: a hip is scored by fits that did not train on it; "
        f"{evidence.worth.n_hips} of {len(inputs.manifest)} hips were tested. Split: "
        + inputs.protocol.get(ProtocolItem.SPLIT, NOT_PROVIDED),
        Topic.SELECTION: " ".join(
            (
                inputs.protocol.get(ProtocolItem.SELECTION, ""),
                f"Optimistic: {inputs.optimistic}" if inputs.optimistic else "",
            )
        ).strip(),
        Topic.DIFFERENCES: "None by design: training and test folds come from one archive",
    }


def _answer_archive(inputs: ReportInputs, evidence: Evidence) -> dict[Topic, str]:
    flow, phantom = inputs.flow, evidence.source is DataSource.PHANTOM
    refused = _list_counts({str(code): n for code, n in flow.refused.items()})
    dropped = "; ".join(
        f"{region.display_name}: {_list_counts(reasons)}"
        for region, reasons in flow.dropped.items()
        if reasons
    )
    return {
        Topic.DESIGN: "Neither: the films were generated" if phantom else "",
        Topic.DATA_SOURCES: "Generated phantoms"
        if phantom
        else f"Films of people; the institution: {NOT_PROVIDED}",
        Topic.ELIGIBILITY: f"Refused on reading, by reason: {refused}",
        Topic.FLOW: f"{flow.found} found, {flow.accepted} accepted, refused: {refused}",
        Topic.MISSING_DATA: "A hip without a region's label is left out for that region only; no "
        f"label is imputed. Left out: {dropped or 'none'}",
        Topic.REFERENCE: _describe_reference(inputs, evidence),
        Topic.DISJOINT: _describe_disjoint(inputs),
        Topic.DEMOGRAPHICS: _describe_demographics(inputs.manifest),
        Topic.EVENTS: _describe_events(evidence),
    }


def _describe_events(evidence: Evidence) -> str:
    """Hips of the archive for each label, and those of them that were tested."""
    tested = {(c.cell.region, c.cell.label_type): c for c in evidence.cells}
    return "; ".join(
        f"{counts.region.display_name}, {LABEL_TITLES[label]}: {n} hips, "
        f"{counts.abnormal[label]} abnormal; "
        + (
            f"tested {cell.n_hips} of {cell.n_patients} patients, {cell.n_positives} abnormal"
            if (cell := tested.get((counts.region, label)))
            else "none tested"
        )
        for counts in evidence.counts
        for label, n in counts.labelled.items()
        if n
    )


def _describe_reference(inputs: ReportInputs, evidence: Evidence) -> str:
    measured = dict.fromkeys(c.cell.label_type for c in evidence.cells)
    labels = ". ".join(
        f"{LABEL_TITLES[label]} label: {inputs.labels.get(label, NOT_PROVIDED)}"
        for label in measured
    )
    endpoint = evidence.release.result.endpoint if evidence.release.result else ""
    joined = f"DXA of each region. {labels}"
    return joined + (f". Of the release: {endpoint}" if endpoint else "")


def _describe_disjoint(inputs: ReportInputs) -> str:
    leak = inputs.leak
    return (
        f"On both sides of training and test: {leak.patients_shared} pairs of hips of one patient, "
        f"{leak.duplicates} duplicate and {leak.near_duplicates} near-duplicate pairs"
        + ("; the leakage guard was overridden" if leak.overridden else "")
    )


def _describe_demographics(manifest: pd.DataFrame) -> str:
    ages = pd.to_numeric(manifest["age"], errors="coerce").dropna()
    counts = manifest["sex"].value_counts()
    sexes = "; ".join(f"{sex}: {int(counts.get(sex, 0))} hips" for sex in Sex)
    aged = (
        f"age {ages.mean():.1f} years (SD {ages.std():.1f}, {ages.min():.0f} to {ages.max():.0f})"
        if len(ages) > 1
        else "age unknown"
    )
    return f"Whole archive: {aged}; {sexes}. Per partition: {NOT_PROVIDED}"


def _answer_method(inputs: ReportInputs, evidence: Evidence) -> dict[Topic, str]:
    config, release = inputs.config, evidence.release.result
    stages = {stage for found in evidence.calibrations.values() for stage in found.stages}
    fitted = [STAGE_TITLES[s] for s in CalibrationStage if s in stages - {CalibrationStage.RAW}]
    return {
        Topic.ENSEMBLE: f"{len(release.members)} members, {release.combine} of "
        f"probabilities: {', '.join(release.members)}"
        if release
        else "",
        Topic.UNCERTAINTY: f"{config.level:.0%} percentile bootstrap over patients "
        f"({config.resamples} resamples); comparisons by max-T at a family-wise error of "
        f"{1 - config.level:.0%}",
        Topic.PREDICTION: "Mean over repeats of the out-of-fold probabilities of a hip",
        Topic.RECALIBRATION: f"Platt scaling on inner hips: {', '.join(fitted)}" if fitted else "",
        Topic.CLUSTERS: "Patients are resampled whole; devices are subgroups of the release"
        if evidence.subgroups
        else "Patients are resampled whole",
        Topic.FAIRNESS: "Measured by sex and age band; nothing was adjusted for it"
        if evidence.subgroups
        else "",
    }


def _answer_results(inputs: ReportInputs, evidence: Evidence) -> dict[Topic, str]:
    worth = evidence.worth
    return {
        Topic.SUMMARY: f"{worth.n_cells} cells, {worth.n_fits} fits, {worth.n_hips} hips of "
        f"{worth.n_patients} patients. {worth.verdict}",
        Topic.PERFORMANCE: _describe_performance(evidence),
        Topic.SUBGROUPS: _describe_subgroups(evidence),
        Topic.UPDATING: _describe_updating(evidence),
        Topic.INTERPRETATION: worth.verdict,
        Topic.LIMITATIONS: " ".join(
            (
                *list_banners(inputs, evidence.source),
                f"{worth.n_hips} hips of one archive; no external data.",
            )
        ),
    }


def _describe_performance(evidence: Evidence) -> str:
    result = evidence.release.result
    if result is not None:
        values = (f"{m.heading} {format_interval(result.metrics[m].interval)}" for m in HEADLINE)
        return f"Release, out of fold: {', '.join(values)}"
    return "; ".join(
        f"{best.result.cell.name}: AUROC {format_interval(best.result.pooled[Metric.AUROC])}"
        for best in evidence.worth.best
    )


def _describe_subgroups(evidence: Evidence) -> str:
    return "; ".join(
        f"{s.attribute} {s.group}: "
        + (f"AUROC {format_interval(s.metrics[Metric.AUROC])}" if s.metrics else "too few hips")
        for s in evidence.subgroups
    )


def _describe_updating(evidence: Evidence) -> str:
    """Say what each stage of calibration does to the slope, as the median over cells."""
    slopes = pd.DataFrame(
        [
            {stage: summary.slope.value for stage, summary in found.stages.items()}
            for found in evidence.calibrations.values()
        ]
    ).median()
    known = [
        f"{STAGE_TITLES[stage]} {slopes[stage]:.2f}"
        for stage in CalibrationStage
        if stage in slopes and slopes[stage] == slopes[stage]
    ]
    return f"Median calibration slope over cells: {', '.join(known)}" if known else ""


def _list_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items()) or "none"
