"""What scoring would take: the index and measured rates against given machines.

A film costs seconds of waiting for the store, core-seconds of decoding, and core-seconds or
GPU-seconds of networks; all are measured where films were scored, and are in the rows. Waiting
costs no core, but each decoder waits for few films at a time. A machine with GPUs decodes on all
its cores beside them, and the slowest side sets the pace.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import pandas as pd
import pyarrow as pa

from hipray.config.jobs import PlanRun, ScoreRun
from hipray.config.scoring import Machine
from hipray.errors import DataError
from hipray.progress import describe_duration
from hipray.scoring.films import FETCHED_AHEAD
from hipray.scoring.index import Index
from hipray.scoring.open_work import count_open
from hipray.scoring.parts import PartSet
from hipray.scoring.rows import CPU_DEVICE
from hipray.scoring.status import read_note
from hipray.storage import Store

SAMPLED_PARTS = 64
"""Parts, evenly spread, whose seconds are read."""
START_UP_S = 45.0
"""Fixed start of a submission, at most."""
DEFAULT_DECODER_CPUS = float(ScoreRun.model_fields["cpus_per_decoder"].default)
ONE_CORE = Machine(name="one measured core", cpus=1)


@dataclass(frozen=True)
class MeasuredRates:
    """Means over measured films."""

    films: int
    fetch_s: float
    """Seconds until the store has given a film."""
    decode_s: float
    """Core-seconds of decoding a film."""
    cpu_s: float | None
    """Core-seconds of the networks per film; None where none ran on a CPU."""
    gpu_s: float | None
    """GPU-seconds of the networks per film; None where none ran on a GPU."""
    gpu: str
    """The GPU that was measured; empty without one."""


@dataclass(frozen=True)
class MachineEstimate:
    """What scoring takes on some machines."""

    machine: Machine
    films_per_second: float
    bound: str
    """What sets the pace."""
    seconds: float
    cost: float | None


def describe_plan(config: PlanRun, output: Store) -> str:
    """Return time and cost on each of the machines, and what they were computed from.

    Raises DataError where nothing was scored yet, as rates are measured and not guessed, and where
    the archive is not listed to its end and no number of films is given.
    """
    parts = PartSet(read_note(output).parts)
    rates = measure_rates(output, parts)
    films, of = (config.films, "") if config.films else _count_left(output, parts)
    lines = [
        f"films: {films:,}{of}",
        f"measured on {rates.films} films: {rates.fetch_s:.3f} s to fetch one, "
        f"{rates.decode_s:.3f} core-seconds to decode it{_describe_networks(rates)}",
    ]
    estimates = [estimate(machine, rates, films) for machine in config.machines or (ONE_CORE,)]
    lines += [_describe(e) if isinstance(e, MachineEstimate) else e for e in estimates]
    return "\n".join(lines + _name_best([e for e in estimates if isinstance(e, MachineEstimate)]))


def _take_columns(table: pa.Table, columns: list[str]) -> pd.DataFrame:
    if not set(columns) <= set(table.column_names):
        raise DataError(
            f"parts with {', '.join(columns)}",
            "parts of an earlier version without some of them",
            "score some hundred films with this version first",
        )
    frame: pd.DataFrame = table.select(columns).to_pandas()
    return frame


def measure_rates(output: Store, parts: PartSet) -> MeasuredRates:
    """Return the mean seconds of films in a sample of the parts."""
    count = sum(1 for _ in parts.list_all(output))
    every = max(1, count // SAMPLED_PARTS)
    names = islice(parts.list_all(output), 0, None, every)
    columns = ["key", "device", "fetch_seconds", "decode_seconds", "model_seconds"]
    tables = [_take_columns(part.table, columns) for part in parts.read(output, names)]
    rows = pd.concat(tables).drop_duplicates("key") if tables else pd.DataFrame(columns=columns)
    if rows.empty:
        raise DataError(
            f"films that were scored in {output.uri}, to measure by",
            "none",
            "score some hundred films of the archive first",
        )
    on_cpu = rows["device"] == CPU_DEVICE
    return MeasuredRates(
        films=len(rows),
        fetch_s=float(rows["fetch_seconds"].mean()),
        decode_s=float(rows["decode_seconds"].mean()),
        cpu_s=_mean(rows["model_seconds"][on_cpu]),
        gpu_s=_mean(rows["model_seconds"][~on_cpu]),
        gpu=str(next(iter(rows["device"][~on_cpu]), "")),
    )


def _mean(seconds: "pd.Series[float]") -> float | None:
    return float(seconds.mean()) if len(seconds) else None


def _count_left(output: Store, parts: PartSet) -> tuple[int, str]:
    """Films of open shards, by the shards' mean size: reading all parts would take long."""
    index = Index(output)
    totals = index.totals()
    if not index.is_complete():
        raise DataError(
            f"the archive of {output.uri} listed to its end",
            f"{index.count_shards()} shards so far",
            "ask again later (a run that was stopped lists on when it is submitted again), "
            "or name the number with --films",
        )
    listed = totals.current
    left = round(totals.files * count_open(output, parts) / totals.shards)
    return min(left, listed), f" left of {listed:,} listed"


def estimate(machine: Machine, rates: MeasuredRates, films: int) -> MachineEstimate | str:
    """Return what `films` take on machines of a kind, or why that cannot be said."""
    rate = _gpu_rate(machine, rates) if machine.gpus else _cpu_rate(machine, rates)
    if isinstance(rate, str):
        return rate
    films_per_second, bound = rate
    films_per_second *= machine.count
    seconds = START_UP_S + films / films_per_second
    price = machine.price_per_hour
    cost = None if price is None else seconds / 3600 * price * machine.count
    return MachineEstimate(machine, films_per_second, bound, seconds, cost)


def _cpu_rate(machine: Machine, rates: MeasuredRates) -> tuple[float, str] | str:
    if rates.cpu_s is None:
        return f"  {machine.name}: not known, no film was scored on a CPU"
    core_s = rates.cpu_s + rates.decode_s
    bound = f"cores, {100 * rates.cpu_s / core_s:.0f} % of them for the networks"
    computing = machine.cpus * machine.cpu_speed / core_s
    return min((computing, bound), _fetching_rate(machine, rates))


def _gpu_rate(machine: Machine, rates: MeasuredRates) -> tuple[float, str] | str:
    one = machine.gpu_films_per_second or (1 / rates.gpu_s if rates.gpu_s else None)
    if one is None:
        return (
            f"  {machine.name}: not known, no film was scored on a GPU; "
            "set gpu_films_per_second or score a sample on one"
        )
    networks = machine.gpus * one
    decoding = machine.cpus * machine.cpu_speed / rates.decode_s
    return min(
        (networks, "GPUs"), (decoding, "decoding on the cores"), _fetching_rate(machine, rates)
    )


def _fetching_rate(machine: Machine, rates: MeasuredRates) -> tuple[float, str]:
    """The pace of as many decoders as the cores hold; they wait for the store at the same time."""
    decoders = machine.cpus / DEFAULT_DECODER_CPUS
    bound = "the store's answers; lower cpus_per_decoder for more decoders"
    return decoders * FETCHED_AHEAD / rates.fetch_s, bound


def _describe(found: MachineEstimate) -> str:
    machine = found.machine
    count = f"{machine.count} x " if machine.count > 1 else ""
    cost = "" if found.cost is None else f", costs {found.cost:,.2f}"
    return (
        f"  {count}{machine.name}: {describe_duration(found.seconds)}{cost}; "
        f"{found.films_per_second:.1f} films/s, bound by {found.bound}"
    )


def _describe_networks(rates: MeasuredRates) -> str:
    cpu = "" if rates.cpu_s is None else f", {rates.cpu_s:.3f} core-seconds of networks"
    return cpu + ("" if rates.gpu_s is None else f", {rates.gpu_s:.4f} s on {rates.gpu}")


def _name_best(estimates: Sequence[MachineEstimate]) -> list[str]:
    if len(estimates) < 2:
        return []
    fastest = min(estimates, key=lambda e: e.seconds)
    priced = [(e.cost, e) for e in estimates if e.cost is not None]
    cheapest = min(priced, key=lambda pair: pair[0])[1].machine.name if priced else None
    return [*_best("fastest", fastest.machine.name), *_best("cheapest", cheapest)]


def _best(word: str, name: str | None) -> Iterator[str]:
    if name is not None:
        yield f"{word}: {name}"
