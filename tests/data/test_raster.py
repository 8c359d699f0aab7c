import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from hipray.config.images import ImageLimits, Preprocessing
from hipray.data.film import Film
from hipray.data.images import read_film
from hipray.data.refusals import Refusal
from hipray.vocab import Finding, RefusalCode
from tests.data.film_files import draw_hip, encode_image

GREY = draw_hip()


def read(data: bytes, **settings: Any) -> Film:
    film = read_film(data, name="film.png", preprocessing=Preprocessing(**settings))
    assert isinstance(film, Film), film
    return film


def refusal_of(data: bytes, limits: ImageLimits | None = None) -> Refusal:
    refusal = read_film(data, name="film.png", limits=limits)
    assert isinstance(refusal, Refusal), refusal
    return refusal


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_a_grey_film_keeps_its_pixels(image_format: str) -> None:
    film = read(encode_image(GREY, image_format))
    assert np.array_equal(film.pixels, GREY)
    assert Finding.BIT_DEPTH_8 in film.info.findings


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_sixteen_bits_are_kept(image_format: str) -> None:
    wide = GREY.astype(np.uint16) * 250
    film = read(encode_image(wide, image_format))
    assert np.array_equal(film.pixels, wide)
    assert film.info.bits == 16
    assert Finding.BIT_DEPTH_8 not in film.info.findings


def test_a_big_tiff_is_a_tiff() -> None:
    wide = GREY.astype(np.uint16) * 250
    assert np.array_equal(read(encode_image(wide, "TIFF", big_tiff=True)).pixels, wide)


@pytest.mark.parametrize("quality", [95, 60])
def test_a_grey_film_saved_as_a_colour_jpeg_is_accepted(quality: int) -> None:
    film = read(encode_image(np.stack([GREY] * 3, axis=2), "JPEG", quality=quality))
    assert np.corrcoef(film.pixels.ravel(), GREY.ravel())[0, 1] > 0.99


def test_a_tinted_film_and_a_film_with_coloured_marks_are_accepted() -> None:
    tinted = np.stack([GREY * 0.7, GREY * 0.85, GREY * 1.0], axis=2).astype(np.uint8)
    marked = np.stack([GREY] * 3, axis=2)
    marked[100:103, 20:200] = (255, 0, 0)
    read(encode_image(tinted))
    read(encode_image(marked))


def test_a_colour_photograph_is_refused_unless_forced() -> None:
    blurred = np.random.default_rng(0).integers(0, 255, (8, 8, 3)).astype(np.uint8)
    photo = np.asarray(Image.fromarray(blurred).resize((256, 256), Image.Resampling.BICUBIC))
    refusal = refusal_of(encode_image(photo))
    assert (refusal.code, refusal.detector) == (RefusalCode.NOT_A_RADIOGRAPH, "colour")
    read(encode_image(photo), force_colour=True)


def test_transparent_pixels_are_padding() -> None:
    alpha = np.full_like(GREY, 255)
    alpha[:30] = 0
    rgba = np.stack([GREY, GREY, GREY, alpha], axis=2)
    film = read(encode_image(rgba))
    assert film.padding is not None
    assert np.array_equal(film.padding, alpha == 0)


def test_a_palette_of_greys_is_read_by_its_colours() -> None:
    image = Image.fromarray(GREY).convert("P", palette=Image.Palette.ADAPTIVE)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    assert np.corrcoef(read(buffer.getvalue()).pixels.ravel(), GREY.ravel())[0, 1] > 0.99


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    tall = draw_hip(300, 200)
    film = read(encode_image(tall, "JPEG", quality=95, exif=exif))
    assert film.pixels.shape == (200, 300)
    assert np.corrcoef(film.pixels.ravel(), np.rot90(tall, -1).ravel())[0, 1] > 0.99


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "TIFF"])
def test_a_truncated_file_is_refused_as_unreadable(image_format: str) -> None:
    data = encode_image(GREY, image_format)
    assert refusal_of(data[: len(data) // 2]).code is RefusalCode.UNREADABLE


def png_announcing(width: int, height: int) -> bytes:
    header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    body = b"IDAT" + zlib.compress(b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (chunk, body)
    )


@pytest.mark.parametrize("side", [8000, 12000, 60000])
def test_a_size_bomb_is_refused_by_its_header(side: int) -> None:
    refusal = refusal_of(png_announcing(side, side))
    assert (refusal.code, refusal.detector) == (RefusalCode.TOO_LARGE, "dimensions")


def test_a_thumbnail_is_too_small() -> None:
    assert refusal_of(encode_image(GREY[:40])).code is RefusalCode.TOO_SMALL


def test_a_file_above_the_byte_limit_is_too_large() -> None:
    limits = ImageLimits(max_file_bytes=1000)
    assert refusal_of(encode_image(GREY), limits).code is RefusalCode.TOO_LARGE


def test_several_pages_are_refused() -> None:
    pages = [Image.fromarray(GREY)] * 2
    buffer = io.BytesIO()
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
    assert refusal_of(buffer.getvalue()).code is RefusalCode.MULTI_FRAME


def test_pages_beyond_the_second_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer, seen = io.BytesIO(), []
    Image.fromarray(GREY).save(
        buffer, "TIFF", save_all=True, append_images=[Image.fromarray(GREY[:8, :8])] * 50
    )
    seek = TiffImageFile.seek
    monkeypatch.setattr(
        TiffImageFile, "seek", lambda image, page: seen.append(page) or seek(image, page)
    )
    assert refusal_of(buffer.getvalue()).code is RefusalCode.MULTI_FRAME
    assert seen == [1]


def test_one_bit_per_pixel_is_no_radiograph() -> None:
    assert refusal_of(encode_image(GREY > 128)).code is RefusalCode.NOT_A_RADIOGRAPH


def test_a_film_of_floats_with_holes_is_unreadable() -> None:
    holed = GREY.astype(np.float32)
    holed[5, 5] = np.nan
    assert refusal_of(encode_image(holed, "TIFF")).code is RefusalCode.UNREADABLE


def test_a_tiff_of_sixteen_bits_that_stores_white_as_zero_is_turned() -> None:
    wide = GREY.astype(np.uint16) * 250
    buffer = io.BytesIO()
    Image.fromarray(wide.max() - wide).save(buffer, "TIFF", tiffinfo={262: 0})
    assert np.array_equal(read(buffer.getvalue()).pixels, wide)


def test_unsigned_words_of_32_bits_keep_their_sign() -> None:
    words = GREY.astype(np.uint32) * 2**24
    buffer = io.BytesIO()
    Image.fromarray(words.view(np.int32)).save(buffer, "TIFF", tiffinfo={339: 1})
    assert np.corrcoef(read(buffer.getvalue()).pixels.ravel(), GREY.ravel())[0, 1] > 0.999


def test_grey_values_between_nought_and_one_are_shares_of_white() -> None:
    film = read(encode_image((GREY / 255).astype(np.float32), "TIFF"))
    assert np.corrcoef(film.pixels.ravel(), GREY.ravel())[0, 1] > 0.999
