"""Which DXA record belongs to which hip: by the film's file name, else by the patient's id."""

from collections.abc import Iterable
from pathlib import PurePosixPath

from hipray.data.dxa import DxaRecord
from hipray.vocab import Side


class RecordIndex:
    """DXA records found by film or patient, and by side."""

    def __init__(self, records: Iterable[DxaRecord]) -> None:
        self._by_image: dict[str, list[DxaRecord]] = {}
        self._by_patient: dict[str, list[DxaRecord]] = {}
        for record in records:
            if record.image:
                self._by_image.setdefault(_stem(record.image), []).append(record)
            if record.patient_id:
                self._by_patient.setdefault(_patient(record.patient_id), []).append(record)

    def of_film(self, key: str, patient_key: str = "") -> list[DxaRecord]:
        """Return the records of a film; several where both hips or more exams are listed.

        A record that names another film never falls to this one through its patient.
        """
        named = self._by_image.get(_stem(key))
        if named:
            return named
        # films without a header are often named after their patient
        owner = self._by_patient.get(_patient(patient_key or _stem(key)), [])
        return [record for record in owner if not record.image]

    def side_of(self, key: str) -> Side | None:
        """Return the one side that the records of a file name state, or None."""
        sides = {record.side for record in self._by_image.get(_stem(key), [])}
        return sides.pop() if len(sides) == 1 else None


def pick_record(records: list[DxaRecord], side: Side, *, only_hip: bool) -> DxaRecord | None:
    """Return the record of one hip, or None where none fits or the choice would be a guess.

    A film's only record, where it states no side, speaks for every hip on the film.
    """
    if side is not Side.UNKNOWN:
        exact = [record for record in records if record.side is side]
        if exact:
            return exact[0]
    unstated = [record for record in records if record.side is Side.UNKNOWN]
    if unstated and (only_hip or len(records) == 1):
        return unstated[0]
    return records[0] if len(records) == 1 and only_hip and side is Side.UNKNOWN else None


def _stem(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).name.rsplit(".", 1)[0].strip().lower()


def _patient(raw: str) -> str:
    return raw.strip().upper()
