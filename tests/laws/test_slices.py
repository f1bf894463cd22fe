"""A job array of slices, with the reduce steps run singly, gives the bytes of one whole run."""

from __future__ import annotations

from pipeline.line import LINE
from pipeline.selection import Selection
from tests.world_building import Snapshot, Workdir


def test_slices_add_up_to_a_whole_run(fresh: Workdir, reference: Snapshot) -> None:
    for step in LINE:
        if step.kind == "reduce":
            assert fresh.run(stage=step.name).exit_code == 0
            continue
        for index in (1, 0):
            assert fresh.run(stage=step.name, selection=Selection(index=index, count=2)).exit_code == 0
    assert fresh.snapshot() == reference


def test_a_slice_leaves_the_others_partitions_and_reduce_steps_alone(fresh: Workdir) -> None:
    ended = fresh.run(until="filter", selection=Selection(index=0, count=3))
    assert ended.summary.worked == len(fresh.manifests()) == 6  # of 18 metadata files and archives
    assert list(ended.summary.skipped) == ["filter.pool"]


def test_a_source_leaves_the_reduce_step_incomplete_and_says_so(fresh: Workdir) -> None:
    ended = fresh.run(until="filter", selection=Selection(sources=frozenset({"cc3m"})))
    assert ended.exit_code == 0
    assert ended.summary.worked == 1
    assert all(name.startswith("filter.match/") for name in ended.summary.skipped["filter.pool"])
