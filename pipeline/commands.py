"""What the commands print: people's text on stderr, JSON alone on stdout."""

from __future__ import annotations

import os
import re

from manifests.recipe import Recipe
from manifests.store import Store
from pipeline.build import Ended, Options, build
from pipeline.errors import UserError
from pipeline.line import select
from pipeline.progress import stderr_say
from pipeline.selection import Selection
from pipeline.worlds import world_facts


def run_build(
    recipe: Recipe,
    store: Store,
    stage: str,
    until: str,
    sources: list[str],
    slice_: str,
    retry: str,
    ray_address: str,
    arguments: list[str],
) -> int:
    """Run a build and say how it ended; returns the exit code."""
    if stage and until:
        raise UserError("--stage runs one stage, --until the line up to one: give one of them")
    if retry not in {"", "failed"}:
        raise UserError(f"--retry {retry!r}: the one thing that can be retried is `failed`")
    try:
        select(stage, until)
    except ValueError as error:
        raise UserError(str(error)) from error
    unknown = sorted(set(sources) - recipe.enabled_sources().keys())
    if unknown:
        raise UserError(f"--source {unknown[0]}: enabled sources are {', '.join(recipe.enabled_sources())}")
    if ray_address and recipe.run.executor != "ray":
        raise UserError("--ray-address joins a Ray cluster: give --executor ray with it, or leave it out")
    index, count = _slice(slice_)
    options = Options(
        stage, until, Selection(frozenset(sources), index, count), retry == "failed", ray_address, arguments
    )
    ended = build(recipe, store, options, stderr_say)
    _say_end(store, ended)
    return ended.exit_code


def _slice(text: str) -> tuple[int, int]:
    """Return (index, count) of ``I/N``; without it, of the Slurm array task this process is, if it is one."""
    count = os.environ.get("SLURM_ARRAY_TASK_COUNT", "")
    if not text and not count:
        return 0, 0
    if not text:
        task, first = os.environ.get("SLURM_ARRAY_TASK_ID", ""), os.environ.get("SLURM_ARRAY_TASK_MIN", "0")
        text = f"{int(task) - int(first)}/{count}" if task.isdigit() and first.isdigit() else f"{task}/{count}"
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not int(found[1]) < int(found[2]):
        raise UserError(f"--slice {text!r}: write I/N with I from 0 to N-1, e.g. --slice 0/4")
    return int(found[1]), int(found[2])


def _say_end(store: Store, ended: Ended) -> None:
    summary = ended.summary
    if ended.waiting:
        step, names = next(iter(ended.waiting.items()))
        stderr_say(f"nothing could be done: {step} waits for {', '.join(names[:3])}; run the steps before it first")
        return
    if not ended.had_work:
        stderr_say(f"nothing to do: {store.uri} is settled for these settings")
        return
    for name, message in summary.failed.items():
        stderr_say(f"FAILED {name}: {message}")
    for name in summary.left_open:
        stderr_say(f"OPEN {name}: rows are still deferred; run again")
    if summary.broken:
        stderr_say(f"LAW BROKEN {summary.broken}")
    if summary.stopped:
        stderr_say("stopped before the end; run the same command again to resume")
    elif not (summary.failed or summary.left_open or summary.broken):
        stderr_say(f"done: {summary.worked} partitions committed in {store.uri}")
        for kind, lines in world_facts(store).items():
            for line in lines:
                stderr_say(f"{kind}: {line}")
