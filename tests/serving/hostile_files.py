"""Files that somebody sends to do harm: valid ones broken, bombs, and other kinds in disguise."""

import gzip
import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator

import numpy as np

from tests.data.film_files import build_dicom, encode_image, save_dicom

SIDE = 96


def valid_files() -> list[bytes]:
    """Return one film of each format."""
    pixels = np.random.default_rng(3).integers(0, 4096, (SIDE, SIDE), np.uint16)
    grey = (pixels >> 4).astype(np.uint8)
    formats = [encode_image(grey, kind) for kind in ("PNG", "JPEG", "TIFF")]
    return [save_dicom(build_dicom()), *formats]


def truncate(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data))]


def flip_bits(data: bytes, dice: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.randint(1, 64)):
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def damage_header(data: bytes, dice: random.Random) -> bytes:
    """Change bytes where formats keep sizes, types and offsets."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 8)):
        changed[dice.randrange(min(600, len(changed)))] = dice.choice((0, 1, 127, 128, 255))
    return bytes(changed)


def splice(data: bytes, dice: random.Random) -> bytes:
    """Put a part of a file where it does not belong."""
    start, length = dice.randrange(len(data)), dice.randrange(1, 4096)
    at = dice.randrange(len(data))
    return data[:at] + data[start : start + length] * dice.randint(1, 20) + data[at:]


def wear_a_mask(data: bytes, dice: random.Random) -> bytes:
    """Begin as one kind and go on as another."""
    heads = (
        b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0", b"MM\0*", b"\0" * 128 + b"DICM",
        b"%PDF-1.7\n", b"PK\x03\x04", b"MZ", b"\x7fELF", b"GIF89a", b"<svg xmlns='x'>", b"{",
    )  # fmt: skip
    return dice.choice(heads) + data[dice.choice((0, 4, 132)) :]


def announce_huge(data: bytes, dice: random.Random) -> bytes:
    """Say in a header that much more comes than there is."""
    side = dice.choice((65_535, 2**31 - 1, 30_000))
    if dice.random() < 0.5:
        return save_dicom(build_dicom(Rows=min(side, 65_535), Columns=min(side, 65_535)))
    header = struct.pack(">IIBBBBB", side, side, 16, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _png_chunk(b"IHDR", header) + _png_chunk(b"IEND", b"")


def pack_a_bomb(data: bytes, dice: random.Random) -> bytes:
    """Little that inflates to much: pixels, a comment, an archive."""
    zeros = zlib.compress(b"\0" * dice.choice((1 << 20, 1 << 26)), 9)
    side = dice.choice((7000, 20_000))
    header = struct.pack(">IIBBBBB", side, side, 16, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + _png_chunk(b"IHDR", header)
    if dice.random() < 0.4:
        return png + _png_chunk(b"zTXt", b"a\0\0" + zeros) + _png_chunk(b"IEND", b"")
    if dice.random() < 0.6:
        return png + _png_chunk(b"IDAT", zeros) + _png_chunk(b"IEND", b"")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("film.dcm", b"\0" * (1 << 24))
    return dice.choice((archive.getvalue(), gzip.compress(b"\0" * (1 << 24))))


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def nest_sequences(data: bytes, dice: random.Random) -> bytes:
    """A DICOM whose sequences hold sequences, without an end."""
    depth = dice.choice((100, 5000))
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    sequence = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff"
    return save_dicom(build_dicom())[:400] + (sequence + item) * depth


def fill_header(data: bytes, dice: random.Random) -> bytes:
    """A DICOM header of far too much: thousands of elements, or private ones of megabytes."""
    film = build_dicom()
    if dice.random() < 0.5:
        for number in range(dice.choice((1000, 20_000))):
            film.add_new((0x0011 + 2 * (number >> 8), 0x1000 + (number & 0xFF)), "LO", "x" * 16)
    else:
        size = dice.choice((1 << 18, 1 << 22))
        film.add_new(
            (0x0009, 0x1001), dice.choice(("OB", "UN")), dice.randbytes(1 << 10) * (size >> 10)
        )
        film.add_new((0x0009, 0x1002), "UT", "x" * size)
    return save_dicom(film)


def fill_chunks(data: bytes, dice: random.Random) -> bytes:
    """A picture that comes with megabytes beside its pixels: text, EXIF, a colour profile, tags."""
    grey = np.random.default_rng(3).integers(0, 256, (SIDE, SIDE), np.uint8)
    stuffing = dice.randbytes(1 << 10) * dice.choice((1 << 8, 1 << 12))
    if dice.random() < 0.3:  # APP1, as often as it takes: one has 64 KiB at most
        part = b"\xff\xe1" + struct.pack(">H", 65_000) + b"Exif\0\0" + stuffing[: 65_000 - 8]
        picture = encode_image(grey, "JPEG")
        return picture[:2] + part * dice.choice((1, 100)) + picture[2:]
    chunks = {
        b"tEXt": b"Comment\0" + stuffing,
        b"eXIf": b"MM\0*\0\0\0\x08" + struct.pack(">H", 65_535) + stuffing,
        b"iCCP": b"profile\0\0" + zlib.compress(b"\0" * (1 << 26), 9),
        b"tIME": stuffing,
    }
    kind = dice.choice([*chunks])
    picture, header = encode_image(grey, "PNG"), 8 + 25
    return (
        picture[:header] + _png_chunk(kind, chunks[kind]) * dice.choice((1, 2)) + picture[header:]
    )


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    truncate, flip_bits, damage_header, splice, wear_a_mask, announce_huge, pack_a_bomb,
    nest_sequences, fill_header, fill_chunks,
)  # fmt: skip


def hostile_files(count: int, *, seed: int = 0) -> Iterator[bytes]:
    """Yield `count` files, each way of doing harm in turn."""
    dice, valid = random.Random(seed), valid_files()
    for number in range(count):
        mutate = MUTATIONS[number % len(MUTATIONS)]
        yield mutate(dice.choice(valid), dice)
