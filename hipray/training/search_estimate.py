"""What a search would cost before it runs: hips, trials, epochs and time."""

from hipray.config.tuning import Axis, TuneRun
from hipray.data.manifest import label_column, read_manifest
from hipray.errors import DataError
from hipray.progress import describe_duration
from hipray.storage import Store
from hipray.training.costs import count_showings, seconds_per_film
from hipray.training.estimate import START_UP_S
from hipray.training.tuning import resolve_config


def describe_search(store: Store, config: TuneRun) -> str:
    """Return what a search would do as text; nothing is trained or written."""
    config = resolve_config(store, config)
    if not store.exists(config.manifest):
        raise DataError(
            f"a manifest at {store.uri_of(config.manifest)}", "none", "run `hipray ingest` first"
        )
    manifest = read_manifest(store, config.manifest)
    labelled = int(manifest[label_column(config.label_type, config.region)].notna().sum())
    side = labelled * (1 - 1 / config.experiment.split.folds)
    resources, halving = config.resources, config.halving
    most = sum(_seconds(config, name, side) for name in config.backbones) * halving.max_epochs
    likely = most * expected_epochs(config) / halving.max_epochs
    lines = [
        f"run        {config.run} in {config.workspace}",
        f"cell       {config.region.display_name}, {config.label_type}, {config.variant}",
        f"networks   {', '.join(config.backbones)}: {config.trials} trials each "
        f"({config.search}), {len(config.backbones) * config.trials} in all",
        f"hips       about {side:.0f} of {labelled} labelled: all but fold {config.fold} of repeat "
        f"{config.repeat}, whose hips are never seen; {config.inner_folds} inner folds by patient",
        f"epochs     at most {halving.max_epochs}; trials are compared after epochs "
        f"{', '.join(map(str, halving.rungs()))}, one in {halving.reduction_factor:g} goes on",
    ]
    for backbone in config.backbones:
        lines.append(f"space      {backbone}")
        for name, axis in config.offered(backbone).items():
            values = axis.describe() if isinstance(axis, Axis) else " | ".join(map(str, axis))
            lines.append(f"  {name:<16} {values}")
    slots = resources.max_concurrent
    longest, expected = (describe_duration(START_UP_S + total / slots) for total in (most, likely))
    return "\n".join(
        [
            *lines,
            f"resources  {slots} trials x {resources.cpus_per_trial:g} CPU, "
            f"{resources.gpus_per_trial:g} GPU",
            f"time       at most {longest} on CPU if no trial ends early, about {expected} if they "
            "thin out like that; GPUs are far faster and not estimated",
        ]
    )


def expected_epochs(config: TuneRun) -> float:
    """Return the mean epochs of a trial if at each rung one in `reduction_factor` goes on."""
    epochs, left, before = 0.0, 1.0, 0
    for rung in config.halving.rungs():
        epochs += left * (rung - before)
        left, before = left / config.halving.reduction_factor, rung
    return epochs


def _seconds(config: TuneRun, backbone: str, hips: float) -> float:
    """One epoch of all trials of one network, in seconds of one core."""
    settings = config.experiment.classifier_of(backbone)
    k, sides = config.inner_folds, config.space.size_px
    films = hips * (k - 1 if k > 1 else 1 - settings.inner_fraction)
    per_film = sum(seconds_per_film(backbone, side) for side in sides) / len(sides)
    return config.trials * films * count_showings(settings, config.variant) * per_film
