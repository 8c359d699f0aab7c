"""Which DXA record belongs to which hip: by the film's file name, else by the patient's id.

Nothing is guessed. Where two films or two examinations could be meant, a hip has no record and
its labels are missing with that reason.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import PurePosixPath

from hipray.data.dxa import DxaRecord
from hipray.data.dxa.numbers import WHOLE_AS_FRACTION, normalise_text
from hipray.data.listing import stem
from hipray.vocab import Side

Folder = tuple[str, ...]
"""The folders of a path, from the top."""


class RecordIndex:
    """DXA records found by film or patient, and by side.

    `films` are the keys of the archive: a record that names only `001.dcm` speaks for no film
    where two folders hold one of that name.
    """

    def __init__(self, records: Iterable[DxaRecord], films: Iterable[str] = ()) -> None:
        self._by_tail: dict[tuple[str, Folder], list[DxaRecord]] = {}
        self._by_patient: dict[str, list[DxaRecord]] = {}
        self._twins: dict[tuple[str, Folder], list[str]] = {}
        """Films of one folder whose names differ in case or ending alone, by what they share."""
        for key in films:
            self._twins.setdefault((_stem(key), _folder(key)), []).append(key)
        places = set(self._twins)
        self._names = {name for name, _ in places}
        records = list(records)
        unmet = [r for r in records if r.image and _stem(r.image) not in self._names]
        numbered = [r for r in unmet if r.patient_id and not self._names_film(r)]
        self.numbered = len(numbered)
        """Records whose image is a number of something else: only their patient leads to films."""
        self.absent = len(unmet) - len(numbered) if self._names else 0
        """Records that name a film which is not in the archive."""
        self._films = Counter((name, tail) for name, folder in places for tail in _tails(folder))
        self._places = frozenset(places)
        for record in records:
            if record.image:
                for tail in _tails(_folder(record.image)):
                    self._by_tail.setdefault((_stem(record.image), tail), []).append(record)
            if record.patient_id:
                self._by_patient.setdefault(_patient(record.patient_id), []).append(record)

    def of_film(self, key: str, patient_key: str = "") -> list[DxaRecord]:
        """Return the records of a film; several where both hips or more exams are listed.

        A record that names another film never falls to this one through its patient; one that
        numbers rows or examinations does, and never to a film of another patient.
        """
        named = [
            record
            for record in self._naming(key, patient_key)
            if not _contradicts(record, patient_key) and self._means(record, key, patient_key)
        ]
        if named:
            return named
        # films without a header are often named after their patient
        owner = self._by_patient.get(_patient(patient_key or _stem(key)), [])
        return [record for record in owner if not self._names_film(record)]

    def side_of(self, key: str, patient_key: str = "") -> Side | None:
        """Return the one side that the records of a film state, or None."""
        sides = {record.side for record in self.of_film(key, patient_key)}
        return sides.pop() if len(sides) == 1 else None

    def _names_film(self, record: DxaRecord) -> bool:
        """Whether a record's image is a film, of this archive or another one."""
        if not record.image:
            return False
        known = not self._names or _stem(record.image) in self._names
        return known or not _is_number(record.image)

    def _naming(self, key: str, patient_key: str) -> list[DxaRecord]:
        """The records that name this film and no other one; of those the ones that fit it best."""
        name, own = _stem(key), _folder(key)
        for tail in _tails(own):
            records = [
                record
                for record in self._candidates(name, own, tail, patient_key)
                if _count_shared(_folder(record.image or ""), own) == len(tail)
                and not self._is_nearer_elsewhere(record, name, len(tail))
            ]
            if records:
                folders = {_folder(record.image or "") for record in records}
                return records if len(folders) == 1 else []
        return []

    def _candidates(
        self, name: str, own: Folder, tail: Folder, patient_key: str
    ) -> Iterable[DxaRecord]:
        """Records of this name and tail; where other films share both, only the patient's own.

        Few are looked at even where every folder of a large archive holds a film of one name.
        """
        others = self._films[name, tail] - ((name, own) in self._places)
        if not others:
            return self._by_tail.get((name, tail), [])
        owner = self._by_patient.get(_patient(patient_key), [])
        return [r for r in owner if r.image and _stem(r.image) == name]

    def _means(self, record: DxaRecord, key: str, patient_key: str) -> bool:
        """Whether a record of this name is of this film and of none of its twins."""
        twins = self._twins.get((_stem(key), _folder(key)), [])
        if len(twins) < 2:
            return True
        for spelt in _SPELLINGS:
            same = [twin for twin in twins if spelt(twin) == spelt(record.image or "")]
            if len(same) == 1:
                return same == [key]
        known = bool(record.patient_id and patient_key)
        return known and _patient(record.patient_id or "") == _patient(patient_key)

    def _is_nearer_elsewhere(self, record: DxaRecord, name: str, shared: int) -> bool:
        """Whether another film shares more folders with the record than this one does."""
        folder = _folder(record.image or "")
        return shared < len(folder) and self._films[name, folder[len(folder) - shared - 1 :]] > 0


def pick_record(
    records: list[DxaRecord], side: Side, *, only_hip: bool, taken: date | None = None
) -> DxaRecord | None:
    """Return the record of one hip, or None where none fits or the choice would be a guess.

    A record without a side speaks for a film's only hip, and for neither of two: DXA measures one.
    Of several examinations of a side the one nearest to the day the film was `taken` counts.
    """
    if side is not Side.UNKNOWN:
        exact = [record for record in records if record.side is side]
        if exact:
            return _pick_examination(exact, taken)
    unstated = [record for record in records if record.side is Side.UNKNOWN]
    if unstated and only_hip:
        return _pick_examination(unstated, taken)
    return records[0] if len(records) == 1 and only_hip and side is Side.UNKNOWN else None


def _pick_examination(records: list[DxaRecord], taken: date | None) -> DxaRecord | None:
    if len(records) == 1:
        return records[0]
    dated = [(abs(r.exam_date - taken), r) for r in records if taken and r.exam_date]
    if len(dated) < len(records):
        return None
    gaps = [gap for gap, _ in dated]
    nearest = [record for gap, record in dated if gap == min(gaps)]
    return nearest[0] if len(nearest) == 1 else None


def _is_number(image: str) -> bool:
    """Whether an image is named without ending and folder: it may be an accession number."""
    plain = _plain(image)
    return not _folder(image) and stem(plain) == plain


def _contradicts(record: DxaRecord, patient_key: str) -> bool:
    """Whether a number that happens to be a film's name belongs to another patient."""
    if not (record.image and record.patient_id and patient_key):
        return False
    return _is_number(record.image) and _patient(record.patient_id) != _patient(patient_key)


def _stem(name: str) -> str:
    found = PurePosixPath(stem(_plain(name))).name.strip()
    return WHOLE_AS_FRACTION.sub(r"\1", found)


def _written(name: str) -> str:
    """A file's name with the case in which it is written."""
    return PurePosixPath(normalise_text(name).replace("\\", "/")).name


_SPELLINGS: tuple[Callable[[str], str], ...] = (
    _written,
    lambda name: stem(_written(name)),
    lambda name: _written(name).lower(),
)
"""Ways to tell films of one name apart, the strictest first."""


def _folder(name: str) -> Folder:
    return PurePosixPath(_plain(name)).parts[:-1]


def _plain(name: str) -> str:
    """A name without what programs and tables write differently: typography, case, slashes."""
    return normalise_text(name).replace("\\", "/").lower()


def _tails(folder: Folder) -> list[Folder]:
    """The ends of a path of folders, the whole path first and the empty end last."""
    return [folder[start:] for start in range(len(folder) + 1)]


def _count_shared(first: Folder, second: Folder) -> int:
    """How many folders two paths share, counted from the file upwards."""
    count = 0
    while count < min(len(first), len(second)) and first[-1 - count] == second[-1 - count]:
        count += 1
    return count


def _patient(raw: str) -> str:
    return normalise_text(raw).upper()
