"""The scientific sections that decide what a fit is: change one and it is another fit."""

from enum import StrEnum
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from hipray.config.base import Config
from hipray.vocab import Covariate, LabelType, MaskSource, Region, SegmenterArch

NO_WEIGHTS = "none"
"""Start weights drawn at random."""
IMAGENET_WEIGHTS = "imagenet"
"""Start weights of the model hub."""


LEAST_LR_FROM_NOTHING = 1e-5
"""Learning rate below which a network without start weights stays where it is."""


class SplitUnit(StrEnum):
    """What is kept on one side of a split."""

    PATIENT = "patient"
    IMAGE = "image"  # the paper's reading: second hips of a patient may fall on both sides


class ClassWeighting(StrEnum):
    """How the loss answers an unbalanced training set."""

    NONE = "none"
    BALANCED = "balanced"  # weight n / (2 n_class), undone in the logit before calibration


class Budget(StrEnum):
    """What the original and the augmented arm share."""

    EQUAL_STEPS = "equal_steps"  # the same optimiser steps: only the data differs
    EQUAL_EPOCHS = "equal_epochs"  # the paper's: the augmented arm trains seven times longer


class ThresholdRule(StrEnum):
    """How a decision threshold is chosen, on inner validation only."""

    YOUDEN = "youden"
    HALF = "half"  # 0.5, the paper's
    SENSITIVITY = "sensitivity"  # the highest threshold that keeps a chosen sensitivity


class Schedule(StrEnum):
    """How the learning rate changes over a fit."""

    CONSTANT = "constant"  # the paper's
    COSINE = "cosine"  # falls to a hundredth


class Target(StrEnum):
    """What a network learns to tell."""

    LABEL = "label"  # normal or abnormal, the paper's
    SCORE = "score"  # the T- or Z-score itself; the threshold is applied after


class Freeze(StrEnum):
    """What of a network keeps its start weights."""

    NOTHING = "nothing"
    HALF = "half"  # the first half of the feature layers
    FEATURES = "features"  # all but the dense layer


class VggHead(StrEnum):
    """What follows VGG16's convolutions."""

    POOLED = "pooled"  # global average pooling, 59 MB
    FULL = "full"  # the original two 4096-wide layers, 537 MB


class SegmentationLoss(StrEnum):
    """The first term of the segmentation loss; Dice is always the second."""

    BCE_DICE = "bce_dice"
    FOCAL_DICE = "focal_dice"


class DataSettings(Config):
    """How hips are framed for the networks."""

    working_px: int = Field(256, ge=32, le=2048)
    """Side in pixels of the square frame that masks live in and crops are cut from."""


class SplitSettings(Config):
    """The one split of an archive."""

    folds: int = Field(5, ge=2, le=20)
    """Parts of each repeat; each part is the test set of one fold. 5 parts are the paper's 8:2."""
    repeats: int = Field(1, ge=1, le=100)
    """How often the whole archive is dealt into folds anew."""
    unit: SplitUnit = SplitUnit.PATIENT
    """What never falls on both sides."""
    stratify_region: Region = Region.TOTAL_HIP
    """Region whose label is balanced over the folds, together with the DXA device."""
    stratify_label: LabelType = LabelType.T_SCORE
    """Label that is balanced over the folds."""
    seed: int = 2023
    """Seed of the deal."""


class LeakageSettings(Config):
    """When a split is refused."""

    allow: bool = False
    """Train although train and test share a patient or film; reports and cards say so."""
    near_duplicate_correlation: float = Field(0.25, gt=0, le=0.4)
    """Correlation of registered grain from which two films that agree well in structure are the
    same exposure; where structure agrees nearly perfectly they are, whatever their grain. Copies
    that were turned or stored anew have .4 and more: a higher limit would let them through."""


class SegmenterSettings(Config):
    """How the segmenters are trained (section 2.3 and 3.3.2)."""

    archs: tuple[SegmenterArch, ...] = (SegmenterArch.UNET,)
    """Networks to train; the first one cuts the masks of the segmented variant."""
    per_region: bool = False
    """One net per region as in the paper, instead of one net with an output for each."""
    encoder: str = "resnet18"
    """Encoder name of segmentation-models-pytorch."""
    decoder_channels: tuple[int, ...] = (64, 48, 32, 16, 16)
    """Widths of the five decoder stages."""
    size_px: int = Field(192, ge=32, le=1024, multiple_of=32)
    """Input side in pixels."""
    weights: str = NO_WEIGHTS
    """Start weights: imagenet, none, or the key of a safetensors file in the workspace, of the
    encoder or of a whole network."""
    loss: SegmentationLoss = SegmentationLoss.BCE_DICE
    """First term of the loss."""
    epochs: int = Field(30, ge=1)
    """Most passes over the training films."""
    patience: int = Field(8, ge=1)
    """Passes without a better inner-validation loss before training stops."""
    batch: int = Field(8, ge=2)
    """Films per optimiser step."""
    lr: float = Field(1e-3, gt=0)
    """Learning rate of AdamW, with cosine decay to a hundredth."""
    weight_decay: float = Field(1e-4, ge=0)
    """Weight decay of AdamW."""
    inner_fraction: float = Field(0.15, gt=0, lt=0.5)
    """Share of the training patients held back for early stopping."""
    seed: int = 1
    """Seed of initial weights, order and augmentation."""


class MattingSettings(Config):
    """How the segmented variant cuts a region out (section 3.3.3)."""

    mask: MaskSource = MaskSource.PREDICTED
    """Which mask cuts."""
    dilate_fraction: float = Field(0.03, ge=0, le=0.5)
    """Growth of a dilated mask, as a share of the frame's side."""
    margin_fraction: float = Field(0.02, ge=0, le=0.5)
    """Air left around the mask's bounding box, as a share of the frame's side."""
    min_area_fraction: float = Field(0.001, gt=0, lt=1)
    """Smallest mask, as a share of the frame, that counts as the region being there."""


class ClassifierSettings(Config):
    """How the classifiers are trained (section 3.4.3)."""

    size_px: int = Field(224, ge=32, le=1024)
    """Input side in pixels."""
    weights: str = NO_WEIGHTS
    """Start weights: imagenet, none, or the key of a safetensors file in the workspace."""
    background_fraction: float = Field(0.0, ge=0, le=0.5)
    """SD of the local mean taken off each view, as a share of its side; 0 keeps all grey values."""
    target: Target = Target.LABEL
    """label, or score: the T-score (t_score label) or Z-score (bmd label) by regression."""
    covariates: tuple[Covariate, ...] = ()
    """What the network is told beside the film, fused before the last layer."""
    test_time_augmentation: bool = False
    """Answer with the mean log odds of the film and its six moved copies."""
    freeze: Freeze = Freeze.NOTHING
    """What keeps its start weights, batch statistics included."""
    head: VggHead = VggHead.POOLED
    """Head of VGG networks; other networks have one way."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Dropout before the dense softmax layer."""
    lr: float = Field(1e-4, gt=0)
    """Learning rate of AdamW, which without weight decay is the paper's Adam."""
    schedule: Schedule = Schedule.CONSTANT
    """How the learning rate changes over the epochs."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay (decoupled)."""
    batch: int = Field(16, ge=2)
    """Films per optimiser step (the paper's 16)."""
    epochs: int = Field(40, ge=1)
    """Most epochs."""
    patience: int = Field(10, ge=1)
    """Epochs without a better inner-validation loss before training stops."""
    budget: Budget = Budget.EQUAL_STEPS
    """What an epoch is in the augmented arm."""
    class_weighting: ClassWeighting = ClassWeighting.BALANCED
    """Loss weights of the classes."""
    inner_fraction: float = Field(0.2, gt=0, lt=0.5)
    """Share of the training patients held back for epoch, threshold and calibration."""
    threshold: ThresholdRule = ThresholdRule.YOUDEN
    """Rule for the decision threshold."""
    screening_sensitivity: float = Field(0.85, gt=0, le=1)
    """Sensitivity that threshold = 'sensitivity' keeps on inner validation."""
    rotation_degrees: float = Field(3.0, ge=0, le=45)
    """Rotation of the offline augmentation, both ways (Table 1)."""
    shift_px_at_224: float = Field(5.0, ge=0, le=100)
    """Shift of the offline augmentation along x and y, both ways, in pixels of a 224 px film."""
    batch_scale: float = Field(0.2, ge=0, lt=1)
    """Each augmented batch is scaled by one factor between 1 - this and 1 + this."""
    seed: int = 1
    """Seed of initial weights, order, dropout and augmentation."""

    @model_validator(mode="after")
    def _refuse_a_run_that_cannot_learn(self) -> Self:
        if self.weights == NO_WEIGHTS and self.lr < LEAST_LR_FROM_NOTHING:
            raise ValueError(
                f"weights = 'none' with lr = {self.lr:g} cannot learn: Adam moves a weight by at "
                "most lr a step, 700 steps at 1e-6 by 0.0007; set weights = 'imagenet' or a "
                "file, or lr >= 1e-5"
            )
        if self.weights == NO_WEIGHTS and self.freeze is not Freeze.NOTHING:
            raise ValueError(
                f"freeze = '{self.freeze}' would keep random weights for ever; set weights = "
                "'imagenet' or a file, or freeze = 'nothing'"
            )
        return self


class TuningOrigin(Config):
    """Where tuned settings come from: what the tuner saw must not test them."""

    run: str
    """The tuning run."""
    split: str
    """Digest of the split that it tuned on."""
    repeat: int = Field(ge=0)
    """Repeat of that split."""
    fold: int = Field(ge=0)
    """The one fold of that repeat whose test hips the tuner did not see."""


class Experiment(Config):
    """All scientific sections together."""

    data: DataSettings = DataSettings()
    """How hips are framed."""
    split: SplitSettings = SplitSettings()
    """How patients are divided."""
    leakage: LeakageSettings = LeakageSettings()
    """When a split is refused."""
    segmenter: SegmenterSettings = SegmenterSettings()
    """How masks are learned."""
    matting: MattingSettings = MattingSettings()
    """How regions are cut out."""
    classifier: ClassifierSettings = ClassifierSettings()
    """How labels are learned."""
    backbones: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Classifier settings of single networks that differ from `classifier`, by network."""
    tuning: TuningOrigin | None = None
    """Where the settings were tuned; no part of a fit's identity."""

    def classifier_of(self, backbone: str) -> ClassifierSettings:
        """Return the classifier settings of one network."""
        own = self.backbones.get(backbone, {})
        return ClassifierSettings.model_validate(self.classifier.model_dump() | own)

    @model_validator(mode="after")
    def _check_backbones(self) -> Self:
        for backbone in self.backbones:
            try:
                self.classifier_of(backbone)
            except ValidationError as error:
                first = error.errors()[0]
                key = ".".join(map(str, first["loc"]))
                raise ValueError(f"backbones.{backbone}.{key}: {first['msg']}") from None
        return self
