"""Annotations: labelme files and region masks, read, checked and written."""

from hipray.data.annotations.masks import check_masks
from hipray.data.annotations.reader import (
    MAX_FILE_BYTES,
    Annotation,
    read_image_path,
    read_labelme,
)
from hipray.data.annotations.shapes import Mask, Points
from hipray.data.annotations.writer import Outline, write_labelme

__all__ = [
    "MAX_FILE_BYTES",
    "Annotation",
    "Mask",
    "Outline",
    "Points",
    "check_masks",
    "read_image_path",
    "read_labelme",
    "write_labelme",
]
