"""Puts together what keeps one run's numbers, as its recipe says."""

from __future__ import annotations

from collections.abc import Callable

from manifests.recipe import Recipe
from manifests.store import Store
from pipeline.events import Events
from pipeline.live import Watch
from pipeline.picture import Picture
from pipeline.watching.keeper import Keeper
from pipeline.watching.prometheus import Metrics
from pipeline.watching.sinks import Port, RunFiles, Sink, TextFile
from pipeline.watching.snapshot import Snapshots
from pipeline.watching.stalls import Stalls
from pipeline.watching.tally import Tally

REMOTE_S = 30.0
"""Least seconds between two documents in a workdir on an object store, where each costs three requests."""


def kept(
    recipe: Recipe,
    store: Store,
    folder: str,
    scope: str,
    events: Events,
    tally: Tally,
    watch: Watch,
    picture: Picture,
) -> Keeper:
    """Return the keeper of a run's numbers.

    Args:
        recipe: `run.metrics_every_s` and its like.
        store: The workdir.
        folder: The run's folder below it.
        scope: What the run works on: ``run``, or a slice.
        events: The run's events.
        tally: Their counts.
        watch: Knows what running tasks told last.
        picture: How downloads go.
    """
    run, metrics = recipe.run, Metrics()
    every_s = run.metrics_every_s if store.local_path("") else max(run.metrics_every_s, REMOTE_S)
    sinks: list[Callable[[], Sink]] = [lambda: RunFiles(store, folder, metrics)]
    if run.metrics_file:
        sinks.append(lambda: TextFile(run.metrics_file, scope, metrics))
    if run.metrics_port:
        sinks.append(lambda: Port(run.metrics_bind, run.metrics_port, metrics))
    if run.wandb:
        from pipeline.watching.wandb_log import WandbLog

        sinks.append(lambda: WandbLog(recipe, store, folder, scope))
    stalls = Stalls(tally, events, watch.told, run.stalled_after_s, run.partition_deadline_s)
    return Keeper(events, Snapshots(tally, scope, every_s), metrics, sinks, stalls, picture.now, every_s)
