"""The words of hipray: every region, label, network, refusal and unit of work, as pure data.

A fifth region, another label or a new refusal code starts here; every other module imports these
names and none spells them as a string. What else they want (`tests/test_vocabulary_tables.py` names
the tables that lack one):

Region      at the end of its enum, in `REGION_NAMES` and `REGION_ALIASES` ("lt" is a side already);
            trained by every grid that does not choose its `regions`, which refuses an archive
            without its labels; in `HEADLINE_REGIONS`, or ISCD gives it no part in a diagnosis
  figures   `BMD_RANGES` and `AREA_RANGES` of `data.dxa.checks`, its spellings in `columns` there,
            `YOUNG_NORMALS` of `data.reference`
  masks     `ENCLOSED_BY` of `data.annotations.masks`, `CONTOUR_COLOURS` of `data.contours`, what
            is no hip in `segmentation.plausibility`; a region is one piece, of which
            `segmentation.segmenter` keeps the largest
  elsewhere one of another bone is passed by as `_SPINE` of `data.dxa.columns` is (`places` there),
            and its films are refused by `OTHER_PART_WORDS` of `data.dicom_header`
  phantoms  its outline in `anatomy` of `data.phantom`, its T-scores in `patient`, its place in
            `MATCHING_ORDER` of `mineral`, its norm of age in `scanner`; `IOU_TARGETS` of `skill`
  versions  `MANIFEST_VERSION` of `data.manifest`, `SCHEMA_VERSION` of `scoring.rows`
LabelType   trained by every grid that does not choose its `label_types`, which refuses an archive
            where one of its regions has none; another rule of the BMD label is no member but a
            `BmdRule` of `config.labels`
  rule      `LabelRules` of `config.labels`; `data.labels` applies it and says it in words; what
            networks learn of it is in `MEASURED` of `training.views` (`target = "score"` counts in
            SD, from one threshold for all makers)
  figures   a quantity behind it: `DxaQuantity`, `data.dxa.records` and `checks`, `data.manifest`
  words     `data.dxa.columns` and `results`, `parse_label` of `people` there (osteopenia is a word
            for T-scores only); `evaluation.layout`, `serving.page`, `dicom_objects`
  versions  as a region's
RefusalCode
  raised    for a header in `data.dicom` (words: `dicom_header`), for pixels in `data.images` (film)
            or `hips` (hip; found in `detectors`), for masks in `segmentation.plausibility`
  switch    `Preprocessing` of `config.images`, with another `PREPROCESSING_VERSION`
  phantoms  a `DecoyKind` of `data.phantom.study`, drawn by `decoys`; where a hip is on it a
            `StudyKind`, drawn by `render` and `films`; `PhantomStudy.refusal` has the code of both
            (blurred hips have none: they are accepted)
  words     `REFUSALS` of `serving.page`; `FILE_REFUSALS` of `serving.problems` if it is no film
Finding     remarked where a refusal is raised; `FINDINGS` of `serving.page`
Covariate   at the end of its enum
  value     `data.person`; its columns in `data.manifest`, `rows` and `dxa`; where a header has it
            `film`, `dicom_header`, `dicom` and `transport` there
  callers   `Stated` of `serving.films`, `serving/page.html`, `PredictRun`, `predict`
  checks    the people of `bundles.golden` and `bundles.assembly`; `evaluation.baselines`
Runtime     and `RuntimeChoice`: its network in `runtime`, what it takes in `runtime.memory`; it is
            chosen in `bundles.networks`, `bundles.loading` and `releases.engines`; an export of its
            own is made in `bundle`, `assembly` and `card` of the bundles
"""

from dataclasses import dataclass
from enum import StrEnum


class Region(StrEnum):
    """A region of interest of the hip as DXA reports it (Feng et al. 2023, section 3.2).

    Add new ones at the end: masks and generated hips find theirs by place.
    """

    FEMORAL_NECK = "femoral_neck"
    GREATER_TROCHANTER = "greater_trochanter"
    WARDS_TRIANGLE = "wards_triangle"
    TOTAL_HIP = "total_hip"

    @property
    def display_name(self) -> str:
        """The name a person reads."""
        return REGION_NAMES[self]

    @property
    def research_only(self) -> bool:
        """Whether ISCD gives this region no part in a diagnosis (trochanter, Ward's triangle)."""
        return self not in HEADLINE_REGIONS


REGION_NAMES = {
    Region.FEMORAL_NECK: "Femoral neck",
    Region.GREATER_TROCHANTER: "Greater trochanter",
    Region.WARDS_TRIANGLE: "Ward's triangle",
    Region.TOTAL_HIP: "Total hip",
}

REGIONS = tuple(Region)
"""Channel order of every mask array: femoral neck, greater trochanter, Ward's, total hip."""

HEADLINE_REGIONS = (Region.FEMORAL_NECK, Region.TOTAL_HIP)
"""ISCD 2023: the diagnosis takes the lower T-score of femoral neck and total hip."""

REGION_ALIASES = {
    "neck": Region.FEMORAL_NECK,
    "fn": Region.FEMORAL_NECK,
    "fem neck": Region.FEMORAL_NECK,
    "femoral neck": Region.FEMORAL_NECK,
    "股骨頸": Region.FEMORAL_NECK,
    "troch": Region.GREATER_TROCHANTER,
    "trochanter": Region.GREATER_TROCHANTER,
    "gt": Region.GREATER_TROCHANTER,
    "greater trochanter": Region.GREATER_TROCHANTER,
    "大轉子": Region.GREATER_TROCHANTER,
    "ward": Region.WARDS_TRIANGLE,
    "wards": Region.WARDS_TRIANGLE,
    "ward's": Region.WARDS_TRIANGLE,
    "wt": Region.WARDS_TRIANGLE,
    "wards triangle": Region.WARDS_TRIANGLE,
    "ward's triangle": Region.WARDS_TRIANGLE,
    "total": Region.TOTAL_HIP,
    "th": Region.TOTAL_HIP,
    "hip": Region.TOTAL_HIP,
    "total hip": Region.TOTAL_HIP,
}


def parse_region(text: str) -> Region | None:
    """Return the region that a report or an annotator means by `text`, or None."""
    word = text.strip().lower().replace("_", " ").replace("-", " ").replace("’", "'")
    return REGION_ALIASES.get(" ".join(word.split()))


class Baseline(StrEnum):
    """A way to score a hip without its film."""

    MAJORITY = "majority"
    COVARIATES = "covariates"  # logistic regression on what is known of the person
    OST = "ost"  # Osteoporosis Self-assessment Tool for Asians: weight and age


class DxaQuantity(StrEnum):
    """What a DXA report measures of a region, as the manifest's columns are named."""

    BMD = "bmd"  # g/cm²
    T = "t"  # T-score: SD from the young-normal mean
    Z = "z"  # Z-score: SD from the mean of the same age


class LabelType(StrEnum):
    """Which DXA quantity makes a hip abnormal (section 3.4.2 and Table 4 of the paper)."""

    T_SCORE = "t_score"
    BMD = "bmd"


class Backbone(StrEnum):
    """The paper's three classifiers, by their timm names: what its tables are compared with.

    Any other network is named by its timm name alone and needs no member here. A member is one more
    network of every grid, search and bench by default, of the audit of the paper's tables and of
    `hipray skill`.
    """

    VGG16 = "vgg16"
    RESNET50 = "resnet50"
    DENSENET121 = "densenet121"


class Variant(StrEnum):
    """How a classifier's data is prepared: the paper's three experiments (section 3.1)."""

    ORIGINAL = "original"
    AUGMENTED = "augmented"
    SEGMENTED = "segmented"

    @property
    def view(self) -> "View":
        """What part of the film this variant looks at."""
        return View.MATTED if self is Variant.SEGMENTED else View.WHOLE


class View(StrEnum):
    """The pixels a classifier receives: the whole hip, or only what lies inside the mask."""

    WHOLE = "whole"
    MATTED = "matted"


class MaskSource(StrEnum):
    """Where a matted view's mask comes from."""

    PREDICTED = "predicted"
    TRUE = "true"
    DILATED = "dilated"  # the predicted mask grown by a margin: separates "context lost"
    BOX = "box"  # the square about the predicted mask, nothing blanked


class SegmenterArch(StrEnum):
    """The paper's two segmentation networks (section 2.3)."""

    UNET = "unet"
    UNETPP = "unetpp"


class Side(StrEnum):
    """The patient's side as the file states it; never guessed from pixels."""

    LEFT = "left"
    RIGHT = "right"
    UNKNOWN = "unknown"


class Sex(StrEnum):
    """The patient's sex as the record states it."""

    FEMALE = "female"
    MALE = "male"
    UNKNOWN = "unknown"


class Covariate(StrEnum):
    """What a network may know of the person beside the film.

    Add new ones at the end: released networks find theirs by place.
    """

    AGE = "age"
    SEX = "sex"
    BMI = "bmi"


class Part(StrEnum):
    """Which hips of a fit a prediction belongs to."""

    TRAIN = "train"
    INNER = "inner"  # inner validation: epoch, threshold and calibration come from here
    TEST = "test"


class Runtime(StrEnum):
    """What computes a network's answers."""

    TORCH = "torch"
    ONNX = "onnx"  # ONNX Runtime


class RuntimeChoice(StrEnum):
    """What a configuration asks for."""

    AUTO = "auto"  # torch on GPUs; on CPUs ONNX Runtime where every network is exported
    TORCH = "torch"
    ONNX = "onnx"


class Device(StrEnum):
    """Where a network's answers are computed, as torch names it."""

    CPU = "cpu"
    CUDA = "cuda"


class Precision(StrEnum):
    """In what numbers a network's answers are computed."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class DataSource(StrEnum):
    """Whether a number comes from generated phantoms or from films of people."""

    PHANTOM = "phantom"
    REAL = "real"


class ModelKind(StrEnum):
    """What a trained network does."""

    SEGMENTER = "segmenter"
    CLASSIFIER = "classifier"


class FitState(StrEnum):
    """Where one fit of a grid stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class RefusalCode(StrEnum):
    """Why a file or a hip is not scored: the same codes in ingest, endpoint and batch."""

    UNREADABLE = "unreadable"  # no decoder makes an image of it
    TOO_LARGE = "too_large"  # beyond the byte or pixel limit, found before decoding
    TOO_SMALL = "too_small"  # too few pixels to show trabeculae
    NOT_AN_IMAGE = "not_an_image"  # a DICOM object without pixels (report, plan, directory)
    WRONG_MODALITY = "wrong_modality"  # DICOM modality other than a projection radiograph
    NOT_A_RADIOGRAPH = "not_a_radiograph"  # colour, text or a flat field
    WRONG_BODY_PART = "wrong_body_part"  # the file states another body part
    WRONG_VIEW = "wrong_view"  # the file states a lateral or frog-leg view
    MULTI_FRAME = "multi_frame"  # a cine or volume
    IMPLANT = "implant"  # metal in the region of interest
    REGION_MISSING = "region_missing"  # the segmenter found no such region
    IMPLAUSIBLE_GEOMETRY = "implausible_geometry"  # regions where no hip has them
    DECODER_CRASH = "decoder_crash"  # decoding ran out of time or memory, or died
    DUPLICATE = "duplicate"  # the same pixels came before in this archive
    MISSING_OBJECT = "missing_object"  # the named file or key does not exist
    CHANGED_OBJECT = "changed_object"  # its content changed after it was listed


class Finding(StrEnum):
    """A quality remark that does not stop the answer."""

    VIEW_UNSTATED = "view_unstated"
    WRONG_VIEW_SUSPECTED = "wrong_view_suspected"
    SIDE_UNKNOWN = "side_unknown"
    SIDE_CONTRADICTED = "side_contradicted"  # the caller and the file say two; neither was taken
    SPACING_UNKNOWN = "spacing_unknown"
    POLARITY_INVERTED = "polarity_inverted"  # stored as low = white and turned round
    LOW_CONTRAST = "low_contrast"
    BURNED_IN_TEXT = "burned_in_text"
    METAL_SUSPECTED = "metal_suspected"
    LOW_MASK_CONFIDENCE = "low_mask_confidence"
    BIT_DEPTH_8 = "bit_depth_8"
    BODY_PART_UNSTATED = "body_part_unstated"
    PELVIS_SUSPECTED = "pelvis_suspected"  # taken as one hip; picture or header say two


@dataclass(frozen=True, order=True)
class Cell:
    """One experiment of the grid: a region, a label, a network and a way to prepare the data."""

    region: Region
    label_type: LabelType
    backbone: str  # a Backbone, or any other timm name
    variant: Variant

    @property
    def name(self) -> str:
        """The cell's name in paths and tables, for example `total_hip-t_score-vgg16-original`."""
        return f"{self.region}-{self.label_type}-{self.backbone}-{self.variant}"


@dataclass(frozen=True, order=True)
class Fit:
    """The unit of work of a grid: one cell trained on one repeat and fold of the split."""

    cell: Cell
    repeat: int
    fold: int

    @property
    def name(self) -> str:
        """The fit's name in ledgers, for example `total_hip-t_score-vgg16-original-r0f3`."""
        return f"{self.cell.name}-r{self.repeat}f{self.fold}"


@dataclass(frozen=True, order=True)
class SegmenterFit:
    """One segmenter trained on one repeat and fold; all regions at once, or one region only."""

    arch: SegmenterArch
    regions: tuple[Region, ...]
    repeat: int
    fold: int

    @property
    def name(self) -> str:
        """The fit's name in ledgers, for example `unet-all-r0f3` or `unetpp-total_hip-r0f3`."""
        scope = "all" if self.regions == REGIONS else "+".join(self.regions)
        return f"{self.arch}-{scope}-r{self.repeat}f{self.fold}"
