"""What `rs5m-build train` prints: a live table on a terminal, plain lines elsewhere, all on stderr."""

from __future__ import annotations

from types import TracebackType
from typing import cast

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from manifests.recipe import Recipe
from manifests.store import Store
from pipeline.progress import stderr_say
from pipeline.train import Planned, Trained, Watcher, plan_training, train
from stages.train.job import Record

_ROWS = 12
_COLUMNS = ("step", "epoch", "loss", "lr", "images/s", "scale", "grad norm", "skipped", "to go")
_GIB = 1 << 30


def run_train(recipe: Recipe, store: Store, shards: str, *, plan: bool) -> int:
    """Train, or say what would be done; returns the exit code.

    Args:
        recipe: The resolved recipe.
        store: The workdir.
        shards: A pattern of local tars; empty: the workdir's release.
        plan: Only say what would be done.
    """
    if plan:
        for line in plan_lines(plan_training(recipe, store, shards, stderr_say)):
            stderr_say(line)
        return 0
    with TrainingView() as view:
        trained = train(recipe, store, shards, Watcher(stderr_say, view.planned, view.record))
    if trained.leads:
        for line in end_lines(trained, store):
            stderr_say(line)
    return trained.signal_code


def plan_lines(planned: Planned) -> list[str]:
    """Return what a training would do, for people."""
    job, split = planned.job, [shard.split for shard in planned.shards]
    lines = [f"train.{name} = {value!r}" for name, value in planned.recipe.train.model_dump().items()]
    lines += [
        f"{planned.pairs:,} pairs in {split.count('train')} training tars",
        f"recall over {planned.validation_pairs:,} pairs of {split.count('val')} validation tars",
        f"{job.steps:,} steps of {job.batch} pairs; an epoch has {planned.steps_of_epoch:,}",
        f"fingerprint {planned.parts.fingerprint[:16]}: {'done' if planned.committed else 'to do'}",
    ]
    if planned.incomplete:
        lines.append(f"{planned.incomplete:,} samples have no picture or no caption and are left out")
    if memory := planned.memory:
        lines.append(
            f"memory of a rank: about {memory.total / _GIB:.2f} GiB ({memory.state / _GIB:.2f} for "
            f"{memory.parameters:,} weights, {memory.trainable:,} of them trained; {memory.per_pair / 1e6:.1f} MB for "
            f"each of {memory.pairs} pairs at a time); train.accumulate makes the latter fewer"
        )
    return lines


def end_lines(trained: Trained, store: Store) -> list[str]:
    """Return how a training ended, for people."""
    planned, fitted = trained.planned, trained.fitted
    if fitted is None:
        return [f"nothing to do: {store.uri}/{planned.folder} is trained for these tars and settings"]
    where = f"{store.uri}/{planned.folder}/{fitted.checkpoint.name}"
    skipped = ", ".join(f"{count} {reason}" for reason, count in fitted.skipped.items() if count)
    lines = [f"skipped: {skipped}"] if skipped else []
    if not fitted.complete:
        return [*lines, f"stopped after step {fitted.steps}; run the same command again to go on from {where}"]
    if fitted.recall:
        first, last = fitted.recall[min(fitted.recall)], fitted.recall[max(fitted.recall)]
        changes = [
            f"{name} {first[name]:.3f} -> {last[name]:.3f}" for name in last if name != "pairs" and name in first
        ]
        lines.append(f"validation recall over {last['pairs']:.0f} pairs, before -> after: {', '.join(changes)}")
    return [*lines, f"trained {fitted.steps} steps: {where}; open_clip loads it as local-dir:{where}"]


class TrainingView:
    """Shows records as they come. Use it as a context manager around a training."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._steps: list[Record] = []
        self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=4, transient=False)

    def __enter__(self) -> TrainingView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live.is_started:
            self._live.stop()

    def planned(self, planned: Planned) -> None:
        """Say what will be done."""
        if not planned.committed:
            self._say("; ".join(plan_lines(planned)[len(type(planned.recipe.train).model_fields) :]))
            if self._console.is_terminal:
                self._live.start()

    def record(self, record: Record) -> None:
        """Take in a record of the log."""
        if "note" in record:
            self._say(str(record["note"]))
        elif "recall" in record:
            recall = cast("dict[str, float]", record["recall"])
            shares = ", ".join(f"{name} {share:.3f}" for name, share in recall.items() if name != "pairs")
            self._say(f"step {record['step']}: {recall['pairs']:.0f} validation pairs: {shares}")
        else:
            self._steps = [*self._steps[1 - _ROWS :], record]
            if not self._console.is_terminal:
                self._say(", ".join(f"{name} {cell}" for name, cell in zip(_COLUMNS, _cells(record), strict=True)))

    def _say(self, text: str) -> None:
        console = self._live.console if self._console.is_terminal else self._console
        console.print(Text(text), soft_wrap=True)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for column in _COLUMNS:
            table.add_column(column, justify="right")
        for record in self._steps:
            table.add_row(*_cells(record))
        return table


def _cells(record: Record) -> list[str]:
    step, steps, batch = (cast("int", record[name]) for name in ("step", "steps", "batch"))
    speed = cast("float", record["images_per_s"])
    norm = cast("float | None", record["grad_norm"])
    return [
        f"{step}/{steps}",
        str(record["epoch"]),
        f"{record['loss']:.4f}",
        f"{record['lr']:.3g}",
        f"{speed:,.1f}",
        f"{record['logit_scale']:.2f}",
        "" if norm is None else f"{norm:.3g}",
        str(record["skipped"]),
        f"{(steps - step) * batch / speed:,.0f} s" if speed else "",
    ]
