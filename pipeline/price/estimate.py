"""The price of a build before it is run: of every step what is still to do, and what that takes at given machines."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from manifests.recipe import Recipe
from manifests.source_specs import enabled_specs
from manifests.sources import SourceSpec
from manifests.store import Store
from pipeline.line import LINE
from pipeline.planner import Planner
from pipeline.plans import StepPlan
from pipeline.price.machine import Machine
from pipeline.price.models import ModelWork, model_work
from pipeline.price.needs import StepNeed
from pipeline.price.rates import Rates, load_rates
from pipeline.price.rows import Load, RowFlow, pictures
from stages.step import Step

_MB = 1_000_000
_WITH_IMAGES = ("download.fetch", "dedup.inspect", "outlier.embed", "caption.generate", "shard.pack")
_DEADLINE_SHARE = 0.8
"""Share of a partition's deadline after which a download asks no more: what it has not asked stays deferred."""


def needs(
    recipe: Recipe,
    store: Store,
    planner: Planner | None,
    at: Machine,
    steps: Sequence[Step] = LINE,
    *,
    plan_all: bool = True,
) -> list[StepNeed]:
    """Return what each step has still to do, and what that takes.

    Args:
        recipe: The recipe.
        store: The workdir; it need not be there.
        planner: Plans over it; None: nothing is done, and rows are those of the published table.
        at: The machines it is to run on.
        steps: The steps to price; rows are followed along the whole line.
        plan_all: Whether steps that are not planned yet are planned now, which reads their commits. If not, they count
            as if nothing of them were done: then the result is an upper bound.

    Returns:
        One for each of ``steps``, in order; nothing for a staged world that is not built yet, whose rows nobody knows.
    """
    if planner is None and recipe.world:
        return []
    specs, rates = enabled_specs(recipe), load_rates()
    last = max((LINE.index(step) for step in steps), default=-1)
    plans = _plans(planner, LINE[: last + 1] if plan_all else ())
    before = {name: planner.settled_before(name) for name in plans} if planner else {}
    loads = RowFlow(recipe, specs, store, plans, before, rates).loads()
    price = _Price(recipe, specs, rates, at, loads, plans, _released(planner, plans))
    return [price.of(step) for step in steps]


def _plans(planner: Planner | None, now: Sequence[Step]) -> dict[str, StepPlan]:
    """Return the plans of the steps that are to be planned now, and of others that are planned already."""
    if planner is None:
        return {}
    found = {step.name: planner.plan(step) if step in now else planner.known(step) for step in LINE}
    return {name: plan for name, plan in found.items() if plan is not None}


def _released(planner: Planner | None, plans: Mapping[str, StepPlan]) -> int:
    """Return the bytes of released tars that are to be made anew: they are replaced in place."""
    if planner is None or "shard.pack" not in plans:
        return 0
    return planner.left_behind_bytes("shard.pack", "tar")


class _Price:
    """Turns loads into needs."""

    def __init__(
        self,
        recipe: Recipe,
        specs: Mapping[str, SourceSpec],
        rates: Rates,
        at: Machine,
        loads: Mapping[str, Load],
        plans: Mapping[str, StepPlan],
        released_bytes: int,
    ) -> None:
        self._recipe = recipe
        self._specs = specs
        self._rates = rates
        self._at = at
        self._released_bytes = released_bytes
        self._loads = loads
        self._plans = plans
        self._image_bytes = self._mean_image_bytes()

    def of(self, step: Step) -> StepNeed:
        """Return what a step needs."""
        load, rates = self._loads[step.name], self._rates.steps[step.name]
        rows, fresh = sum(load.rows.values()), load.fresh
        part = fresh / rows if rows else 0.0
        work = model_work(self._recipe, self._rates, step.name)
        gpus = self._recipe.run.gpu_share if work.name and self._at.gpus else 0.0
        from_web, from_archives = self._images(step.name, load, part)
        images = from_web + from_archives
        requests = part * pictures(load.rows, self._specs)[0] if step.name == "download.fetch" else 0.0
        files = load.partitions * rates.files_per_task + (load.parts if load.partitions else 0) * rates.files_per_part
        cpu_s = (
            fresh * rates.cpu_s_per_row
            + images / _MB * rates.cpu_s_per_mb
            + load.partitions * rates.start_s
            + self._reading_s(step.name, load, part)
            + (0.0 if gpus else fresh * work.cpu_s)
        )
        gpu_s = fresh * work.gpu_s if gpus else 0.0
        share = load.largest / rows if rows else 0.0
        waiting_s = requests * self._rates.web.held_s / self._recipe.download.network.connections
        held_s = max(cpu_s, waiting_s, gpu_s)
        task_s = max(held_s * share, self._host_s(requests, load.largest))
        return StepNeed(
            step=step.name,
            kind=step.kind,
            partitions=load.partitions,
            rows=round(rows),
            requests=round(requests),
            stored_bytes=round(self._stored(step.name, load, images, files, work)),
            files=round(files),
            cpu_s=cpu_s,
            gpu_s=gpu_s,
            task_s=task_s,
            cpus=1,
            memory_bytes=round(self._memory(step.name, load, work, on_gpu=bool(gpus))),
            gpus=gpus,
            is_estimate=load.is_estimate,
            held_s=held_s,
            wall_s=self._wall_s(step.name, load.partitions, held_s, task_s, from_web, on_gpu=bool(gpus)),
            scratch_bytes=round(images * share if step.name in ("download.fetch", "shard.pack") else 0),
            assumed=self._assumed(step.name, load, work, on_gpu=bool(gpus)),
            is_firm=load.is_firm,
        )

    def _mean_image_bytes(self) -> tuple[float, float]:
        """Return the mean bytes of a picture of the web and of archives: of this workdir's, else from the table."""
        plan = self._plans.get("download.fetch")
        sums = {False: [0, 0], True: [0, 0]}
        for partition, manifest in (plan.settled() if plan else {}).items():
            if tar := manifest.output("images"):
                kind = sums[not partition.startswith("web-")]
                kind[0] += tar.bytes
                kind[1] += tar.rows
        staged = self._rates.worlds[self._recipe.world.kind]["image_bytes"] if self._recipe.world else 0.0
        web = staged or self._rates.web.image_bytes
        rows = self._loads["download.fetch"].whole
        listed = {
            key: staged or self._rates.of_source(key, spec.format).image_bytes
            for key, spec in self._specs.items()
            if spec.is_archive
        }
        held = sum(rows.get(key, 0.0) for key in listed)
        archives = sum(rows.get(key, 0.0) * size for key, size in listed.items()) / held if held else web
        return (
            sums[False][0] / sums[False][1] if sums[False][1] else web,
            sums[True][0] / sums[True][1] if sums[True][1] else archives,
        )

    def _images(self, step: str, load: Load, part: float) -> tuple[float, float]:
        """Return the bytes of pictures that a step reads or writes: of the web, and of archives."""
        if step not in _WITH_IMAGES:
            return 0.0, 0.0
        web, archives = pictures(load.kept if step == "download.fetch" else load.rows, self._specs)
        return part * web * self._image_bytes[0], part * archives * self._image_bytes[1]

    def _reading_s(self, step: str, load: Load, part: float) -> float:
        """Return the CPU seconds of reading metadata, and of reading or rendering pictures out of archives."""
        if step not in ("filter.match", "download.fetch"):
            return 0.0
        seconds = 0.0
        for source, rows in load.rows.items():
            spec = self._specs[source]
            rates = self._rates.of_source(source, spec.format)
            seconds += rows * (rates.cpu_s_per_row if step == "filter.match" else part * rates.fetch_cpu_s_per_row)
        return seconds

    def _stored(self, step: str, load: Load, images: float, files: float, work: ModelWork) -> float:
        """Return what a step adds to the workdir; a release that is there is replaced, not added to."""
        rates = self._rates.steps[step]
        rows, kept = sum(load.rows.values()), sum(load.kept.values())
        left = 0.0 if step == "filter.match" else rows - kept
        tables = kept * (rates.row_bytes + work.stored_bytes) + left * rates.ledger_row_bytes + files * rates.file_bytes
        match step:
            case "download.fetch":
                return tables + images
            case "shard.pack":
                return tables + max(0.0, images + kept * self._rates.web.tar_row_bytes - self._released_bytes)
            case _:
                return tables

    def _host_s(self, requests: float, largest: float) -> float:
        """Return the seconds that the largest host takes: it is asked a few urls at a time, whoever else waits."""
        if not requests:
            return 0.0
        network, web = self._recipe.download.network, self._rates.web
        rows = min(largest, requests * web.host_share, self._recipe.filter.host_cap)
        seconds = rows * max(web.host_s / network.per_host, network.spacing_s)
        return min(seconds, _DEADLINE_SHARE * self._recipe.run.partition_deadline_s)

    def _memory(self, step: str, load: Load, work: ModelWork, *, on_gpu: bool) -> float:
        rates = self._rates.steps[step]
        rows = load.largest if load.partitions else 0.0
        return rates.memory_bytes + rows * rates.memory_bytes_per_row + (0.0 if on_gpu else work.memory_bytes)

    def _wall_s(
        self, step: str, partitions: int, held_s: float, task_s: float, from_web: float, *, on_gpu: bool
    ) -> float:
        """Return the seconds of a whole step: as many tasks at a time as there is room for, one driver, one line."""
        if not partitions:
            return 0.0
        slots = max(1.0, min(self._at.gpus if on_gpu else self._at.cores, partitions))
        line_s = from_web / self._rates.web.bytes_per_s if step == "download.fetch" else 0.0
        driver_s = partitions * self._rates.run.driver_s_per_partition
        return max(held_s / slots, task_s, line_s, driver_s) + self._rates.run.worker_start_s

    def _assumed(self, step: str, load: Load, work: ModelWork, *, on_gpu: bool) -> tuple[str, ...]:
        """Return the tables of rates whose figures this price uses and nobody measured."""
        if not load.partitions:
            return ()
        used: dict[str, Collection[str]] = {f"steps.{step}": ()}
        where = "gpu" if on_gpu else "cpu"
        used |= {f"models.{name}": (f"{where}_s_per_image", f"{where}_s_per_text") for name in work.names}
        for source in load.rows if step in ("filter.match", "download.fetch") else ():
            spec = self._specs[source]
            name = source if source in self._rates.metadata else spec.format
            if step == "filter.match":
                used[f"metadata.{name}"] = ("cpu_s_per_row", *(() if spec.format == "parquet" else ("bytes_per_row",)))
            elif spec.is_archive:
                used[f"metadata.{name}"] = ("fetch_cpu_s_per_row", "image_bytes")
        if step in ("download.fetch", "shard.pack") and not self._recipe.world:
            used["web"] = ()
        return tuple(sorted(table for table, keys in used.items() if self._rates.is_assumed(table, keys)))
