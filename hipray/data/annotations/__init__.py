"""Annotations: labelme files and region masks, read, checked and written."""

from hipray.data.annotations.masks import check_masks, mask_to_png, png_to_mask
from hipray.data.annotations.reader import Annotation, read_labelme
from hipray.data.annotations.shapes import Mask, Points
from hipray.data.annotations.writer import Shape, outline_masks, write_labelme

__all__ = [
    "Annotation",
    "Mask",
    "Points",
    "Shape",
    "check_masks",
    "mask_to_png",
    "outline_masks",
    "png_to_mask",
    "read_labelme",
    "write_labelme",
]
