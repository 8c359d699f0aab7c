"""What a person should know of an ingest before the labels are trusted; each as a sentence."""

from collections.abc import Mapping, Sequence
from typing import Any

from hipray.data.archive import FilmFile
from hipray.data.dxa.records import DxaRecord
from hipray.data.flow import Flow
from hipray.data.labels import ISCD_AGE
from hipray.data.manifest import label_column
from hipray.data.rows import NO_RECORD
from hipray.vocab import REGIONS, LabelType, Region, Side

Row = Mapping[str, Any]


def tell_unsided(rows: Sequence[Row]) -> list[str]:
    """Hips of which nothing says the side: a right one among them is not turned."""
    count = sum(row["side"] == Side.UNKNOWN for row in rows)
    if not count:
        return []
    return [
        f"{count} hips are of unknown side and none of them was turned to the left: name it in "
        "a column 'side' of the table or in the films' headers"
    ]


def tell_young(rows: Sequence[Row]) -> list[str]:
    """Hips that carry a T-score label although ISCD diagnoses nobody of their age by it."""
    columns = [label_column(LabelType.T_SCORE, region) for region in REGIONS]
    count = sum(
        row["age"] is not None and row["age"] < ISCD_AGE
        and any(row.get(column) is not None for column in columns)
        for row in rows
    )  # fmt: skip
    if not count:
        return []
    return [
        f"{count} hips of people below {ISCD_AGE:.0f} have a T-score label; ISCD 2023 does not "
        "diagnose osteoporosis by it at that age: read results with them apart"
    ]


def tell_unmatched(records: Sequence[DxaRecord], flow: Flow) -> list[str]:
    """A table of which no record met a film is a mistake in names, not an archive without DXA."""
    dropped = (flow.dropped[region][label].get(NO_RECORD, 0) for region in REGIONS
               for label in LabelType)  # fmt: skip
    if not records or not flow.hips or min(dropped) < flow.hips:
        return []
    return [
        f"none of the table's {len(records)} records names one of the films or its patient: "
        "compare its image or patient column with the file names"
    ]


def tell_numbered(count: int) -> list[str]:
    """Records whose image is what no film is called."""
    if not count:
        return []
    return [
        f"{count} records of the table call their image what no film is called (an accession "
        "number?); they are given to the films of their patient"
    ]


def tell_absent(count: int) -> list[str]:
    """Records of films that are not there."""
    if not count:
        return []
    return [
        f"{count} records of the table name films that are not in the archive; they are not used: "
        "add these films, or compare the names"
    ]


def tell_strays(count: int) -> list[str]:
    """Labelme files that belong to no film."""
    if not count:
        return []
    return [
        f"{count} labelme files belong to no film and are not used: each must lie beside its film "
        "under the film's name, or its imagePath must lead from the file to the film"
    ]


def tell_unsided_contours(film: FilmFile, masks: dict[Region, Any]) -> list[str]:
    """Contours on a film of two hips that do not say of which."""
    if film.annotation is None or not film.annotation.masks or masks:
        return []
    if len(film.result.hips) == 1:
        return []
    return ["contours on a film of two hips do not say of which; they are not used"]
