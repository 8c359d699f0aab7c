"""PNG, JPEG or TIFF bytes -> Film: sizes before decoding, EXIF, alpha, palettes, 16 bit, colour.

Radiographs come out of PACS viewers as 8-bit files, often saved as RGB; a colour file is taken
as a film where its colours are one tint of grey.
"""

from io import BytesIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from hipray.config.images import ImageLimits, Preprocessing
from hipray.data.film import Film, FilmInfo, check_dimensions
from hipray.data.refusals import refuse
from hipray.vocab import Finding, RefusalCode

FORMATS = (PngImageFile.format, JpegImageFile.format, TiffImageFile.format)
"""Pillow knows a format only once its plug-in is imported."""
SIGNATURES = (
    b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+",
)  # fmt: skip
"""First bytes of PNG, JPEG, TIFF and BigTIFF, the latter in either order of bytes."""
WIDE_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
MAX_CHROMA = 16
"""Grey levels of 255 by which channels differ after JPEG's chroma subsampling of grey films."""
CHROMA_PERCENTILE = 95.0
"""Pixels judged; the rest may be coloured marks and measurements."""
MIN_TINT_VARIANCE = 0.995
"""Share of the colour variance on one axis: tinted films have > 0.998, photographs < 0.99."""
MAX_SAMPLED_PIXELS = 100_000
PHOTOMETRIC_TAG, WHITE_IS_ZERO = 262, 0
"""PhotometricInterpretation of TIFF 6.0."""
SAMPLE_FORMAT_TAG, UNSIGNED = 339, 1
FULL_SCALE = 65535.0
WIDE_BITS = 16
OPAQUE_ALPHA = 128


def is_raster(data: bytes) -> bool:
    """Return whether the bytes begin like a PNG, JPEG or TIFF file."""
    return data.startswith(SIGNATURES)


def read_raster(data: bytes, *, limits: ImageLimits, preprocessing: Preprocessing) -> Film:
    """Decode a PNG, JPEG or TIFF file into a film, in the polarity that its header states.

    Raises FilmRefused for what is too large, too small, bilevel, in colour or of several pages;
    Pillow raises errors of its own for damaged files.
    """
    opened = _open(data, limits)
    image = _orient(opened)
    if image.mode == "1":
        raise refuse(RefusalCode.NOT_A_RADIOGRAPH, detector="bilevel", evidence="1 bit per pixel")
    padding = _find_transparent(image)
    pixels = _read_grey(image, preprocessing)
    bits = WIDE_BITS if opened.mode in WIDE_MODES else 8
    if _is_wide_colour_png(data, opened):
        pixels, bits = _read_wide_colours(data), WIDE_BITS
    if _is_white_zero(opened):
        pixels = pixels.max() - pixels
    return Film(pixels, _build_info(pixels, bits), padding)


def _open(data: bytes, limits: ImageLimits) -> Image.Image:
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        evidence = f"more than {limits.max_pixels} px"
        raise refuse(RefusalCode.TOO_LARGE, detector="dimensions", evidence=evidence) from None
    check_dimensions(image.height, image.width, limits)
    if _has_pages(image):
        evidence = "more than one page"
        raise refuse(RefusalCode.MULTI_FRAME, detector="number_of_frames", evidence=evidence)
    return image


def _has_pages(image: Image.Image) -> bool:
    """Whether an image has a second page; the pages of a TIFF are slow to count."""
    if image.format != "TIFF":
        return image.format == "PNG" and int(getattr(image, "n_frames", 1)) > 1
    try:
        image.seek(1)
    except EOFError:
        return False
    return True


def _orient(image: Image.Image) -> Image.Image:
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF states no orientation; Pillow raises many types for it
        return image


def _find_transparent(image: Image.Image) -> NDArray[np.bool_] | None:
    if "A" not in image.getbands() and "transparency" not in image.info:
        return None
    alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    transparent = alpha < OPAQUE_ALPHA
    some = bool(transparent.any()) and not bool(transparent.all())
    return transparent if some else None


def _read_grey(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.float32]:
    if image.mode in (*WIDE_MODES, "L"):
        return _read_wide(image)
    if image.mode in ("LA", "La"):
        return np.asarray(image.getchannel(0), dtype=np.float32)
    colours = np.asarray(image.convert("RGB"))
    if not preprocessing.force_colour:
        _check_colours(colours)
    return np.asarray(colours.mean(axis=2, dtype=np.float32))


def _read_wide(image: Image.Image) -> NDArray[np.float32]:
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    if values.dtype == np.int32 and tags.get(SAMPLE_FORMAT_TAG, (1,))[0] == UNSIGNED:
        values = values.view(np.uint32)  # Pillow reads unsigned words as signed ones
    pixels = np.ascontiguousarray(values, dtype=np.float32)
    if values.dtype.kind == "f" and pixels.min() >= 0 and pixels.max() <= 1:
        return pixels * FULL_SCALE  # grey values as shares of white
    return pixels


def _is_white_zero(image: Image.Image) -> bool:
    """Whether a TIFF of more than 8 bits stores white as 0; Pillow turns the others itself."""
    tags = getattr(image, "tag_v2", {})
    return image.mode in WIDE_MODES and tags.get(PHOTOMETRIC_TAG) == WHITE_IS_ZERO


def _check_colours(colours: NDArray[np.uint8]) -> None:
    flat = colours.reshape(-1, 3)
    sample = flat[:: max(1, len(flat) // MAX_SAMPLED_PIXELS)].astype(np.float32)
    chroma = float(np.percentile(np.ptp(sample, axis=1), CHROMA_PERCENTILE))
    if chroma <= MAX_CHROMA or _tint_variance(sample) >= MIN_TINT_VARIANCE:
        return
    evidence = f"channels differ by {chroma:.0f} of 255 grey levels"
    raise refuse(RefusalCode.NOT_A_RADIOGRAPH, detector="colour", evidence=evidence)


def _tint_variance(sample: NDArray[np.float32]) -> float:
    spectrum = np.linalg.eigvalsh(np.cov(sample.T))
    total = float(spectrum.sum())
    return float(spectrum[-1]) / total if total > 0 else 0.0


def _is_wide_colour_png(data: bytes, image: Image.Image) -> bool:
    """Whether a PNG has 16 bits for each of several channels, of which Pillow keeps eight.

    One that is to be turned stays with Pillow.
    """
    # the header chunk (PNG specification, 11.2.1): depth at byte 24, kind of colour at 25
    wide = data[24:25] == bytes([WIDE_BITS]) and data[25:26] in (b"\2", b"\4", b"\6")
    if image.format != PngImageFile.format or not wide:
        return False
    return int(image.getexif().get(ExifTags.Base.Orientation, 1)) == 1


def _read_wide_colours(data: bytes) -> NDArray[np.float32]:
    channels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if channels is None:
        raise OSError("a damaged PNG")
    return np.asarray(channels[..., :3].mean(axis=2), np.float32)


def _build_info(pixels: NDArray[np.float32], bits: int) -> FilmInfo:
    eight = bits == 8
    findings = [Finding.VIEW_UNSTATED, Finding.BODY_PART_UNSTATED]
    return FilmInfo(
        height=pixels.shape[0],
        width=pixels.shape[1],
        bits=bits,
        findings=(*findings, Finding.BIT_DEPTH_8) if eight else tuple(findings),
    )
