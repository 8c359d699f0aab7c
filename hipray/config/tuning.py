"""What `hipray tune` searches, how long and on which hips."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from hipray.config.base import Config
from hipray.config.experiment import (
    LEAST_LR_FROM_NOTHING,
    NO_WEIGHTS,
    ClassifierSettings,
    ClassWeighting,
    Experiment,
    Freeze,
)
from hipray.config.jobs import PAPER_BACKBONES, Job
from hipray.vocab import LabelType, Region, Variant

Value = float | int | str
"""One setting as a trial receives it."""


class Searcher(StrEnum):
    """Who proposes the next trial."""

    RANDOM = "random"
    OPTUNA = "optuna"  # tree-structured Parzen estimator; needs `pip install hipray[optuna]`


class Axis(Config):
    """Values of one parameter: a range, choices, or one number that fixes it."""

    low: float | None = None
    """Lower end of a range."""
    high: float | None = None
    """Upper end of a range."""
    log: bool = False
    """Draw the logarithm evenly instead of the value."""
    choices: tuple[float, ...] = ()
    """Values to choose from instead of a range; one value fixes the parameter."""

    @model_validator(mode="before")
    @classmethod
    def _read_short_form(cls, given: Any) -> Any:
        if isinstance(given, int | float):
            return {"choices": (given,)}
        return {"choices": given} if isinstance(given, list | tuple) else given

    @model_validator(mode="after")
    def _refuse_an_empty_axis(self) -> Self:
        if self.choices:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("give either choices or low and high")
        elif self.low is None or self.high is None or not self.low < self.high:
            raise ValueError(
                f"the range is empty: give low < high, choices or one value, not low = "
                f"{self.low}, high = {self.high}"
            )
        elif self.log and self.low <= 0:
            raise ValueError(f"a range drawn by its logarithm begins above 0, not at {self.low:g}")
        return self

    def extremes(self) -> tuple[float, ...]:
        """Return the values that bound the axis; for choices all of them."""
        return self.choices or (float(self.low or 0), float(self.high or 0))

    def holds(self, value: Value) -> bool:
        """Tell whether a trial could take `value`."""
        if self.choices:
            return value in self.choices
        low, high = self.extremes()
        return low <= float(value) <= high

    def describe(self) -> str:
        """Return the axis as a person reads it."""
        if self.choices:
            return " | ".join(f"{choice:g}" for choice in self.choices)
        return f"{self.low:g} to {self.high:g}" + (" (log)" if self.log else "")


def _as_tuple(given: Any) -> Any:
    return (given,) if isinstance(given, int | str) else given


class SearchSpace(Config):
    """Which settings of the classifiers are searched; one value instead of several fixes one."""

    lr: Axis = Axis(low=LEAST_LR_FROM_NOTHING, high=1e-3, log=True)
    """Learning rate of AdamW."""
    weight_decay: Axis = Axis(choices=(0, 1e-5, 1e-4, 1e-3, 1e-2))
    """Weight decay (decoupled)."""
    dropout: Axis = Axis(low=0.0, high=0.7)
    """Dropout before the dense layer."""
    size_px: Annotated[tuple[int, ...], BeforeValidator(_as_tuple), Field(min_length=1)] = (
        160,
        224,
    )
    """Input sides in pixels."""
    augmentation: Axis | None = None
    """Factor on rotation_degrees, shift_px_at_224 and batch_scale of the experiment together;
    default: 0 to 2, and nothing in the original variant, which is not augmented."""
    freeze: Annotated[tuple[Freeze, ...] | None, BeforeValidator(_as_tuple)] = Field(
        None, min_length=1
    )
    """What keeps its start weights; default: all ways, and nothing where there are none."""
    class_weighting: Annotated[
        tuple[ClassWeighting, ...], BeforeValidator(_as_tuple), Field(min_length=1)
    ] = tuple(ClassWeighting)
    """Loss weights of the classes."""


class Halving(Config):
    """Asynchronous successive halving (ASHA, Li et al. 2020): weak trials end early."""

    max_epochs: int = Field(20, ge=1)
    """Most epochs of a trial."""
    grace_epochs: int = Field(4, ge=1)
    """Epochs that every trial gets, the first rung."""
    reduction_factor: float = Field(3, gt=1)
    """At each rung about one trial in this many goes on; the next rung is this much later."""

    @model_validator(mode="after")
    def _refuse_a_rung_beyond_the_end(self) -> Self:
        if self.max_epochs < self.grace_epochs:
            raise ValueError(
                f"max_epochs = {self.max_epochs} ends before grace_epochs = {self.grace_epochs}; "
                "raise max_epochs or lower grace_epochs"
            )
        return self

    def rungs(self) -> tuple[int, ...]:
        """Return the epochs after which trials are compared, the last one being the end."""
        rungs: list[int] = []
        rung = float(self.grace_epochs)
        while rung < self.max_epochs:
            rungs.append(int(rung))
            rung *= self.reduction_factor
        return (*rungs, self.max_epochs)


class TrialResources(Config):
    """What trials reserve, and how they survive."""

    max_concurrent: int = Field(2, ge=1)
    """Trials that run at the same time."""
    cpus_per_trial: float = Field(1, gt=0)
    """CPUs of one trial; its torch threads are set to match."""
    gpus_per_trial: float = Field(0, ge=0)
    """GPUs of one trial; a fraction packs trials on one GPU."""
    max_failures: int = Field(3, ge=0)
    """Restarts of a trial whose process dies; it goes on from its last saved epoch."""
    checkpoint_s: float = Field(30, ge=0)
    """Seconds of training that a killed trial may lose beside the epoch it was in; 0 saves each
    epoch. A checkpoint holds the networks of all inner folds."""
    lease_s: float = Field(60, gt=0)
    """Seconds without a heartbeat after which another process may take the search over."""
    store_wait_s: float = Field(600, ge=0)
    """Seconds that a trial waits for a store out of reach before it fails."""


class TuneRun(Job):
    """Choose classifier settings for each network on one outer training side."""

    run: str = Field("tune", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,54}$")
    """Name of the run below runs/."""
    grid: str | None = None
    """A run whose experiment is taken instead of `experiment`."""
    manifest: str = "manifest.parquet"
    """Manifest in the workspace."""
    region: Region = Region.TOTAL_HIP
    """Region of the cell that is tuned."""
    label_type: LabelType = LabelType.T_SCORE
    """Label of the cell that is tuned."""
    variant: Variant = Variant.ORIGINAL
    """Data variant of the cell that is tuned; segmented needs the experiment's segmenters done."""
    backbones: tuple[str, ...] = Field(PAPER_BACKBONES, min_length=1)
    """Networks, each with a search of its own: any timm names."""
    repeat: int = Field(0, ge=0)
    """Repeat of the split."""
    fold: int = Field(0, ge=0)
    """The fold whose test hips the search never sees; every other hip chooses."""
    inner_folds: int = Field(3, ge=1, le=20)
    """Parts, by patient, of that training side; each validates once. 1 holds back one part of
    experiment.classifier.inner_fraction."""
    trials: int = Field(16, ge=1)
    """Trials of each network."""
    try_experiment: bool = True
    """Give the first trial the experiment's own settings where the space holds them: the figure
    that tuning has to beat."""
    search: Searcher = Searcher.RANDOM
    """Who proposes settings; weak trials end early either way."""
    seed: int = 1
    """Seed of the proposals and of the inner folds."""
    space: SearchSpace = SearchSpace()
    """What is searched."""
    halving: Halving = Halving()
    """How long trials run."""
    resources: TrialResources = TrialResources()
    """How the work is spread."""
    experiment: Experiment = Experiment()
    """The scientific settings that are not searched, and where the search begins."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.grid is not None:  # its experiment is known only once the run is read
            if "experiment" in self.model_fields_set:
                raise ValueError("give either grid or experiment: each says what is trained")
            return self
        split = self.experiment.split
        if self.repeat >= split.repeats or self.fold >= split.folds:
            raise ValueError(
                f"repeat = {self.repeat}, fold = {self.fold} is outside the split of "
                f"{split.repeats} repeats and {split.folds} folds"
            )
        augmentation = self.space.augmentation
        if self.variant is Variant.ORIGINAL and augmentation and augmentation.choices != (1,):
            raise ValueError(
                "space.augmentation has no effect: the original variant is not augmented; leave "
                "it out or set variant = 'augmented'"
            )
        for backbone in self.backbones:
            _check_space(self.offered(backbone), self.experiment.classifier_of(backbone))
        return self

    def offered(self, backbone: str) -> dict[str, Axis | tuple[Value, ...]]:
        """Return the axes of one network's search by parameter; tuples are choices.

        Freezing is offered only where there are start weights, augmentation only where the
        variant has any.
        """
        space = self.space
        ways = tuple(Freeze)
        if self.experiment.classifier_of(backbone).weights == NO_WEIGHTS:
            ways = (Freeze.NOTHING,)
        factor = Axis(low=0.0, high=2.0)
        if self.variant is Variant.ORIGINAL:
            factor = Axis(choices=(1.0,))
        defaults: dict[str, Axis | tuple[Value, ...]] = {"augmentation": factor, "freeze": ways}
        axes = ((name, getattr(space, name)) for name in SearchSpace.model_fields)
        return {name: defaults[name] if axis is None else axis for name, axis in axes}


AUGMENTATION = ("rotation_degrees", "shift_px_at_224", "batch_scale")
"""Settings that the one augmentation factor scales together."""


def change_settings(base: ClassifierSettings, chosen: dict[str, Value]) -> dict[str, Any]:
    """Return the classifier settings that the values of a trial change."""
    changed: dict[str, Any] = {k: v for k, v in chosen.items() if k != "augmentation"}
    factor = float(chosen.get("augmentation", 1.0))
    if factor != 1:
        changed |= {key: getattr(base, key) * factor for key in AUGMENTATION}
    return changed


def _check_space(axes: dict[str, Axis | tuple[Value, ...]], base: ClassifierSettings) -> None:
    """Try the ends of every axis: no trial may begin with settings that are refused."""
    for name, axis in axes.items():
        values: Sequence[Value] = axis.extremes() if isinstance(axis, Axis) else axis
        for value in values:
            settings = base.model_dump() | change_settings(base, {name: value})
            try:
                ClassifierSettings.model_validate(settings)
            except ValidationError as error:
                reason = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise ValueError(f"space.{name} = {value}: {reason}") from None
