"""What each command does and tells: one call into the package, then where the result is."""

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TextIO

from hipray import RESEARCH_NOTICE
from hipray.config.base import Config
from hipray.config.benchmarks import BenchRun
from hipray.config.jobs import (
    GridRun,
    IngestRun,
    PhantomRun,
    PlanRun,
    PredictRun,
    ReleaseRun,
    ReportRun,
    ScoreRun,
    SegmentRun,
    ServeRun,
    StatusRun,
)
from hipray.config.tuning import TuneRun
from hipray.scoring.outputs import open_output
from hipray.storage import open_store


def tell(text: str, file: TextIO | None = None) -> None:
    """Print one line for the person at the terminal, or into `file`."""
    print(text, file=file, flush=True)


def dry_run(config: Config) -> None:
    """Print what a job would do and check whether it could; nothing is done."""
    from hipray.dry_run import rehearse

    for line in rehearse(config):
        tell(line)


def phantom(config: PhantomRun) -> None:
    """Make a phantom archive."""
    from hipray.distributed.phantom import run_phantom

    tell(f"{run_phantom(config)} phantom films in {config.archive}")


def ingest(config: IngestRun) -> None:
    """Ingest an archive and print its flow."""
    from hipray.data.flow import describe_flow
    from hipray.data.ingest import run_ingest

    tell(describe_flow(run_ingest(config)))
    tell(f"manifest: {config.workspace}/manifest.parquet")
    tell(f"every file's outcome: {config.workspace}/ingest/files.parquet")
    tell(f"contact sheet: {config.workspace}/ingest/contact-sheet.png")


def grid(config: GridRun) -> None:
    """Train a grid."""
    from hipray.distributed.grid import run_grid

    result = run_grid(config)
    tell(
        f"run {result.run}: {result.fits} of {result.fits} fits done, {result.trained_now} trained "
        f"now, {result.seconds:.0f} s; next: hipray report {result.run} "
        f"--workspace {config.workspace}"
    )


def segment(config: SegmentRun) -> None:
    """Train the segmenters of a grid."""
    from hipray.distributed.segment import run_segment

    result = run_segment(config)
    tell(
        f"run {result.run}: {result.fits} of {result.fits} segmenters done, {result.trained_now} "
        f"trained now, {result.seconds:.0f} s; next: hipray grid --run {config.run} "
        f"--workspace {config.workspace}"
    )


def tune(config: TuneRun) -> None:
    """Choose settings."""
    from hipray.distributed.tune import run_tune
    from hipray.training.run_keys import RunKeys
    from hipray.training.tuned import describe_choices

    result = run_tune(config)
    tell(describe_choices(config, result.choices))
    keys = RunKeys(result.run)
    counts = f"{result.trials} trials, {result.failed} failed, {result.seconds:.0f} s"
    tell(f"{counts}: {config.workspace}/{keys.trials}")
    settings = f"{config.workspace}/{keys.tuned}"
    tell(
        f"settings: {settings}; next: hipray grid --config {settings} "
        f"--workspace {config.workspace} --test-folds '[{config.fold}]'"
    )


def status(config: StatusRun) -> None:
    """Print where a run stands."""
    from hipray.run_status import describe_run_status

    tell(describe_run_status(config))


def plan(config: PlanRun) -> None:
    """Print how long a job would take and what it would cost."""
    from hipray.scoring.estimate import describe_plan

    tell(describe_plan(config, open_output(config)))


def report(config: ReportRun) -> None:
    """Write a run's report."""
    from hipray.evaluation.run_report import run_report

    tell(f"report: {run_report(config)}. {RESEARCH_NOTICE}")


def release(config: ReleaseRun) -> None:
    """Publish a release."""
    from hipray.releases.publish import run_release

    published = run_release(config)
    tell(
        f"release {published.name}: {len(published.members)} members, "
        f"{len(published.segmenters)} segmenters, trained on {published.data_source} data, "
        f"digest {published.digest[:12]}. {RESEARCH_NOTICE}"
    )
    if published.uninformed:
        tell(
            f"{len(published.uninformed)} of its {len(published.members)} members could not tell "
            "the positive hips of inner validation from the others and answer their base rate: "
            "they have learned nothing yet; train longer, or leave them out"
        )


def predict(config: PredictRun) -> None:
    """Score one film; the JSON goes to standard output."""
    from hipray.predict import run_predict

    prediction = run_predict(config)
    tell(json.dumps(prediction.answer, indent=1))
    if prediction.overlay is not None:
        target = Path(config.overlay or f"{Path(config.file).stem}.overlay.png")
        open_store(str(target.parent)).write(target.name, prediction.overlay)
        tell(f"its contours: {target}", sys.stderr)


def serve(config: ServeRun) -> None:
    """Serve a release."""
    from hipray.serving.running import join_endpoint

    join_endpoint(config)  # before Ray is imported
    from hipray.serving.serve import run_serve

    run_serve(config, announce=lambda where: tell(f"{where}. {RESEARCH_NOTICE}"))


def score(config: ScoreRun) -> None:
    """Score an archive."""
    from hipray.distributed.score import run_score

    result = run_score(config)
    tell(
        f"{result.listed} files listed = {result.scored} scored + {result.refused} refused + "
        f"{result.failed} failed{_describe_left_out(result.left_out)}; "
        f"Parquet in {result.output}/parts, summary in {result.output}/summary.html. "
        f"{RESEARCH_NOTICE}"
    )
    if result.failed:
        tell(
            f"why: {result.output}/dead-letters/letters.parquet; --retry failed takes them up again"
        )


def _describe_left_out(count: int | None) -> str:
    return "" if count is None else f", beside {count} keys that were left out"


def bench(config: BenchRun) -> None:
    """Measure; one JSON line per measure goes to standard output."""
    from hipray.benchmarks.run import run_bench

    answers = sys.stdout
    with redirect_stdout(sys.stderr):  # Ray prints its warnings among a command's answers
        for line in run_bench(config):
            tell(line, answers)
