"""Hostile files end as refusals with a reason; the process and the next film do not notice.

A mutation may leave a film: that one gets the answer of any film. No decoder process ends but for a
film of which the answer says so.
"""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hipray.config.images import ImageLimits
from hipray.serving.problems import FILE_REFUSALS
from hipray.vocab import RefusalCode
from tests.serving.conftest import LocalApi
from tests.serving.hostile_files import MUTATIONS, hostile_files

MakeApi = Callable[..., LocalApi]
LIMITS = ImageLimits(decode_seconds=10, decode_memory_mb=1024, max_file_bytes=20_000_000)
MOST_GROWTH_KIB = 400_000
"""Memory that the process around the decoders may gain; a bomb inflates to gigabytes."""
READERS = 1
"""Of the service of `make_api`."""
TRIES = 2
"""Decoders that are given a file which ends the first."""
MOST_DECODER_KIB = LIMITS.decode_memory_mb * 1024


def is_no_film(body: dict[str, Any]) -> bool:
    return body["refusal"] is not None and body["refusal"]["code"] in FILE_REFUSALS


def check_all(api: LocalApi, files: list[bytes], film: bytes) -> Counter[str]:
    before = peak_kib("self")
    codes: Counter[str] = Counter()
    peaks: dict[int, list[int]] = {}
    for data in files:
        answer = api.upload(data)
        body = answer.json()
        assert answer.status_code in (200, 413, 422), answer.text
        assert (answer.status_code == 200) == (not is_no_film(body)), answer.text
        refusals = [body["refusal"], *(hip["refusal"] for hip in body["hips"])]
        told = [RefusalCode(refusal["code"]) for refusal in refusals if refusal]
        assert told or body["hips"], "neither numbers nor a reason"
        codes.update(told or ["answered"])
        for pid in decoders_of(api):
            peaks.setdefault(pid, []).append(peak_kib(pid))
    assert api.upload(film).json()["refusal"] is None
    assert peak_kib("self") - before < MOST_GROWTH_KIB
    assert max(seen[-1] - seen[0] for seen in peaks.values()) < MOST_DECODER_KIB
    deaths = len(peaks) - READERS
    assert deaths <= TRIES * codes[RefusalCode.DECODER_CRASH]
    return codes


def decoders_of(api: LocalApi) -> list[int]:
    """The decoder processes that live."""
    children = [reader._child for reader in api.service._readers._all]
    return [child.pid for child in children if child is not None and child.poll() is None]


def peak_kib(process: int | str) -> int:
    """The most memory that a process has had at a time."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])  # type: ignore[index]


def test_hostile_files_are_refused_with_a_reason(make_api: MakeApi, films: list[bytes]) -> None:
    files = [*hostile_files(4 * len(MUTATIONS))]
    codes = check_all(make_api(limits=LIMITS), files, films[0])
    assert {"unreadable", "too_large"} <= set(codes)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_five_hundred_hostile_files_are_refused_with_a_reason(
    make_api: MakeApi, films: list[bytes]
) -> None:
    """Their decoders say 212 unreadable, 124 films, 59 too large, 54 no image, 49 no radiograph, 1
    too small and 1 implant, and grow by 26 MiB at most."""
    codes = check_all(make_api(limits=LIMITS), [*hostile_files(500, seed=1)], films[0])
    assert codes["answered"] < 250  # flipped bits in pixels still leave a film


def test_any_bytes_at_all_are_refused(make_api: MakeApi) -> None:
    api = make_api(limits=LIMITS)

    @settings(max_examples=20, deadline=None, derandomize=True)
    @given(data=st.binary(max_size=4096))
    def check(data: bytes) -> None:
        answer = api.upload(data)
        assert answer.status_code == 422
        assert answer.json()["code"] == answer.json()["refusal"]["code"]

    check()
