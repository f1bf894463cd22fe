"""The line: every stage in order, every step in order of work. One tuple; to add a step, write it in."""

from __future__ import annotations

from stages.caption.choose import Choose
from stages.caption.generate import Generate
from stages.dedup.cluster import Cluster
from stages.dedup.inspect import Inspect
from stages.download.fetch import Fetch
from stages.filter.match import Match
from stages.filter.pool import Pool
from stages.geo.locate import Locate
from stages.outlier.cut import Cut
from stages.outlier.embed import Embed
from stages.shard.index import Index
from stages.shard.pack import Pack
from stages.shard.plan import Plan
from stages.step import Step

LINE: tuple[Step, ...] = (
    Match(),
    Pool(),
    Fetch(),
    Inspect(),
    Cluster(),
    Embed(),
    Cut(),
    Generate(),
    Choose(),
    Locate(),
    Plan(),
    Pack(),
    Index(),
)

STAGES: tuple[str, ...] = tuple(dict.fromkeys(step.name.split(".")[0] for step in LINE))

_BY_NAME = {step.name: step for step in LINE}


def step_named(name: str) -> Step:
    """Return the step called ``<stage>.<step>``. Raises KeyError."""
    return _BY_NAME[name]


def select(stage: str = "", until: str = "") -> tuple[Step, ...]:
    """Return the steps to run.

    Args:
        stage: A stage or a step: only that.
        until: A stage or a step: the line up to and including it.

    Raises:
        ValueError: If there is no such stage or step.
    """
    for name in filter(None, (stage, until)):
        if name not in STAGES and name not in _BY_NAME:
            known = ", ".join(STAGES)
            raise ValueError(f"no stage or step is called {name!r}; the stages are {known}")
    if stage:
        return tuple(step for step in LINE if stage in (step.name, step.name.split(".")[0]))
    if until:
        last = max(i for i, step in enumerate(LINE) if until in (step.name, step.name.split(".")[0]))
        return LINE[: last + 1]
    return LINE
