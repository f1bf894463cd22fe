"""The status: of every step what is done, what a run would do, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from manifests.canonical import JsonValue
from manifests.fingerprint import Change
from manifests.manifest import FORMAT
from pipeline.planner import Planner
from pipeline.plans import PartitionPlan, StepPlan
from stages.step import Step

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Why:
    """Why partitions are to be done.

    Attributes:
        part: The part of the fingerprint that changed: inputs, recipe, code, models, pins, profile; ``new`` where no
            earlier commit of the partition is there, ``corrupt`` where a file is not as recorded, ``unreadable`` where
            planning saw that what it reads cannot be read.
        key: What changed in it; of inputs, the step whose rows differ; of what is unreadable, what to do.
        was: The value before; null for inputs.
        now: The value now.
        partitions: How many partitions it concerns.
    """

    part: str
    key: str
    was: JsonValue
    now: JsonValue
    partitions: int


@dataclass(frozen=True, slots=True)
class StepStatus:
    """One step's state.

    Attributes:
        step: ``<stage>.<step>``.
        partitions: Those that can be told now; a map step behind one that is not settled has more to come.
        done: Settled.
        open: Committed with rows still deferred.
        todo: Not committed under the current settings.
        why: Reasons of those to do, the most frequent first.
        waits_for: Upstream partitions that must be settled first.
    """

    step: str
    partitions: int = 0
    done: int = 0
    open: int = 0
    todo: int = 0
    why: list[Why] = field(default_factory=list)
    waits_for: list[str] = field(default_factory=list)


def read_status(planner: Planner | None, steps: Sequence[Step]) -> list[StepStatus]:
    """Return the status of steps; without a planner (the world is not built) everything waits for ``world``."""
    if planner is None:
        return [StepStatus(step.name, waits_for=["world"]) for step in steps]
    found = []
    for step in steps:
        found.append(_of(planner.plan(step)))
        planner.settle(step)
    return found


def status_document(steps: Sequence[StepStatus]) -> dict[str, JsonValue]:
    """Return the status as JSON (contracts, section 8)."""
    return {
        "format": FORMAT,
        "steps": [
            {
                "step": s.step,
                "partitions": s.partitions,
                "done": s.done,
                "open": s.open,
                "todo": s.todo,
                "why": [
                    {"part": w.part, "key": w.key, "was": w.was, "now": w.now, "partitions": w.partitions}
                    for w in s.why
                ],
                "waits_for": list[JsonValue](s.waits_for),
            }
            for s in steps
        ],
    }


def status_lines(steps: Sequence[StepStatus]) -> list[str]:
    """Return the status for people: a line a step, and below it why there is something to do."""
    lines = []
    for step in steps:
        counts = f"{step.done} of {step.partitions} done"
        counts += f", {step.open} open" if step.open else ""
        counts += f", {step.todo} to do" if step.todo else ""
        lines.append(f"{step.step:<16} {counts if step.partitions else 'not known yet'}")
        lines += [f"    {_in_words(why)}: {_partitions(why.partitions)}" for why in step.why]
        if step.waits_for:
            more = len(step.waits_for) - _SHOWN
            lines.append(f"    waits for {', '.join(step.waits_for[:_SHOWN])}{f' and {more} more' if more > 0 else ''}")
    return lines


def _of(plan: StepPlan) -> StepStatus:
    states = Counter(p.state for p in plan.partitions)
    todo, total = states["todo"], len(plan.partitions)
    if plan.step.kind == "reduce" and plan.waiting:
        todo = total = 1
    return StepStatus(
        step=plan.step.name,
        partitions=total,
        done=states["done"],
        open=states["open"],
        todo=todo,
        why=_reasons(plan),
        waits_for=list(dict.fromkeys(plan.waiting)),
    )


def _reasons(plan: StepPlan) -> list[Why]:
    """Return what concerns each partition to do, once, with the number of partitions it concerns."""
    counts: dict[str, tuple[Why, set[str]]] = {}
    for partition in plan.partitions:
        if partition.state == "todo":
            for why in _why(partition):
                _, names = counts.setdefault(repr(why), (why, set()))
                names.add(partition.partition)
    for path, what in plan.corrupt.items():
        holders = [p.partition for p in plan.partitions if p.manifest and path in _paths(p)]
        counts[path] = (Why("corrupt", path, None, what, 0), set(holders))
    found = [Why(w.part, w.key, w.was, w.now, len(names)) for w, names in counts.values()]
    return sorted(found, key=lambda w: (-w.partitions, w.part, w.key))


def _why(partition: PartitionPlan) -> list[Why]:
    if partition.manifest:
        return []
    if problem := partition.params.get("problem"):
        return [Why("unreadable", str(problem), None, None, 0)]
    return [_of_change(change) for change in partition.why] or [Why("new", "", None, None, 0)]


def _of_change(change: Change) -> Why:
    if change.part == "inputs":
        return Why("inputs", change.key.split(" ")[0], None, None, 0)
    return Why(change.part, change.key, change.was, change.now, 0)


def _paths(partition: PartitionPlan) -> set[str]:
    manifest = partition.manifest
    return {manifest.ledger.path, *(output.path for output in manifest.outputs)} if manifest else set()


def _in_words(why: Why) -> str:
    match why.part:
        case "new":
            return "not run before"
        case "corrupt":
            return f"{why.key} {why.now}"
        case "unreadable":
            return why.key
        case "inputs":
            return f"rows of {why.key} changed"
        case "code":
            return f"the step's version was {why.was}, now {why.now}"
        case _:
            return f"{why.part} {why.key} was {_value(why.was)}, now {_value(why.now)}"


def _value(value: JsonValue) -> str:
    return "absent" if value is None else str(value)


def _partitions(count: int) -> str:
    return "1 partition" if count == 1 else f"{count} partitions"
