"""A price for people and for programs: a line a step, the sums, and what is free against what is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from manifests.canonical import JsonValue
from manifests.manifest import FORMAT
from manifests.recipe import Recipe
from manifests.store import Store
from pipeline.price.fits import Fit, fits
from pipeline.price.machine import Machine
from pipeline.price.needs import StepNeed

_HOUR_S = 3600.0
_GB = 1e9
_UNITS = (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
_HEAD = ("step", "tasks", "rows", "requests", "stored", "files", "CPU h", "GPU h", "wall h", "memory")


@dataclass(frozen=True, slots=True)
class Totals:
    """The sums over steps.

    Attributes:
        cost: What cores and GPUs cost while tasks hold them; None where the recipe names no price.
        cost_a_month: What is stored costs a month.
    """

    partitions: int
    requests: int
    stored_bytes: int
    files: int
    cpu_s: float
    gpu_s: float
    held_s: float
    wall_s: float
    memory_bytes: int
    cost: float | None
    cost_a_month: float | None


def totals(needs: Sequence[StepNeed], recipe: Recipe) -> Totals:
    """Return the sums over steps, and what they cost where [cluster] names prices."""
    told = recipe.cluster
    gpu_s, held_s = sum(n.gpu_s for n in needs), sum(n.held_s * n.cpus for n in needs)
    stored = sum(n.stored_bytes for n in needs)
    cost = (held_s * told.cpu_hour_cost + gpu_s * told.gpu_hour_cost) / _HOUR_S
    return Totals(
        partitions=sum(n.partitions for n in needs),
        requests=sum(n.requests for n in needs),
        stored_bytes=stored,
        files=sum(n.files for n in needs),
        cpu_s=sum(n.cpu_s for n in needs),
        gpu_s=gpu_s,
        held_s=held_s,
        wall_s=sum(n.wall_s for n in needs),
        memory_bytes=max((n.memory_bytes for n in needs if n.partitions), default=0),
        cost=cost if told.cpu_hour_cost or told.gpu_hour_cost else None,
        cost_a_month=stored / _GB * told.gb_month_cost if told.gb_month_cost else None,
    )


def price_lines(needs: Sequence[StepNeed], recipe: Recipe, store: Store, at: Machine) -> list[str]:
    """Return a price as a table, its sums, what is free against what is needed, and what the marks mean.

    Args:
        needs: Of the steps that are priced.
        recipe: The recipe.
        store: The workdir.
        at: The machines.
    """
    if not needs:
        return ["price: not known before its world is built, which takes seconds"]
    sums = totals(needs, recipe)
    if not sums.partitions:
        return ["price: nothing is to do"]
    rows = [_HEAD, *(_row(need) for need in needs if need.partitions), _sum_row(sums)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_HEAD))]
    where = f"{at.cores} cores" if at.cores != 1 else "1 core"
    where += f" and {at.gpus:g} GPU{'s' if at.gpus != 1 else ''}" if at.gpus else " and no GPU"
    lines = [f"price of what is to do, on {where}:"]
    lines += ["  ".join(_cell(row, place, widths) for place in range(len(_HEAD))).rstrip() for row in rows]
    lines += _cost_lines(sums)
    lines += _room_lines(fits(needs, recipe, store, at))
    return lines + _marks(needs)


def price_document(needs: Sequence[StepNeed], recipe: Recipe, store: Store, at: Machine) -> dict[str, JsonValue]:
    """Return a price as JSON; ``steps`` and ``total`` are null where it is not known."""
    found = fits(needs, recipe, store, at)
    steps: list[JsonValue] = [{**asdict(need), "assumed": list[JsonValue](need.assumed)} for need in needs]
    return {
        "format": FORMAT,
        "machine": dict[str, JsonValue](asdict(at)),
        "steps": steps or None,
        "total": dict[str, JsonValue](asdict(totals(needs, recipe))) if needs else None,
        "room": [dict[str, JsonValue](asdict(place)) for place in found.places],
        "refused": list[JsonValue](found.refused),
        "warned": list[JsonValue](found.warned),
    }


def size(count: float) -> str:
    """Return bytes in decimal units."""
    for unit, one in _UNITS:
        if count >= one:
            return f"{count / one:.3g} {unit}" if count < 999.5 * one else f"{count / one:.0f} {unit}"
    return f"{count:.0f} B"


def _row(need: StepNeed) -> tuple[str, ...]:
    about = "~" if need.is_estimate else ""
    return (
        need.step + ("*" if need.assumed else ""),
        f"{about}{need.partitions:,}",
        f"{about}{need.rows:,}",
        f"{about}{need.requests:,}" if need.requests else "-",
        about + size(need.stored_bytes),
        f"{about}{need.files:,}",
        about + _hours(need.cpu_s),
        about + _hours(need.gpu_s) if need.gpu_s else "-",
        about + _hours(need.wall_s),
        about + size(need.memory_bytes),
    )


def _sum_row(sums: Totals) -> tuple[str, ...]:
    return (
        "total",
        f"{sums.partitions:,}",
        "",
        f"{sums.requests:,}" if sums.requests else "-",
        size(sums.stored_bytes),
        f"{sums.files:,}",
        _hours(sums.cpu_s),
        _hours(sums.gpu_s) if sums.gpu_s else "-",
        _hours(sums.wall_s),
        f"{size(sums.memory_bytes)} at most",
    )


def _hours(seconds: float) -> str:
    hours = seconds / _HOUR_S
    if hours >= 100:
        return f"{hours:,.0f}"
    return f"{hours:.2f}" if hours >= 0.1 else f"{hours:.3f}" if hours >= 0.001 else f"{hours:.5f}"


def _cell(row: Sequence[str], place: int, widths: Sequence[int]) -> str:
    return row[place].ljust(widths[place]) if place == 0 else row[place].rjust(widths[place])


def _cost_lines(sums: Totals) -> list[str]:
    lines = []
    if sums.cost is not None:
        held = f"{sums.held_s / _HOUR_S:,.0f} core hours held"
        lines.append(
            f"cost: {sums.cost:,.2f} for {held} and {sums.gpu_s / _HOUR_S:,.0f} GPU hours; idle ones not counted"
        )
    if sums.cost_a_month is not None:
        lines.append(f"cost of what is stored: {sums.cost_a_month:,.2f} a month")
    return lines


def _room_lines(found: Fit) -> list[str]:
    lines = []
    for place in found.places:
        need = f"{place.what}: {size(place.need_bytes)} and {place.need_files:,} files needed"
        if place.free_bytes is None:
            lines.append(f"{need}; what an object store has free cannot be asked")
            continue
        files = "" if place.free_files is None else f", {place.free_files:,} inodes"
        lines.append(f"{need}, {size(place.free_bytes)}{files} free")
    lines += [f"would be refused: {line}" for line in found.refused]
    return lines + [f"warning: {line}" for line in found.warned]


def _marks(needs: Sequence[StepNeed]) -> list[str]:
    lines = []
    if any(need.is_estimate for need in needs if need.partitions):
        lines.append(
            "~ rows are an estimate: steps before are not settled, shares are this workdir's or the published ones"
        )
    if names := sorted({name for need in needs for name in need.assumed}):
        lines.append(
            f"* rests on assumptions, not measurements ({', '.join(names)}): pipeline/price/rates.toml says on which"
        )
    return lines
