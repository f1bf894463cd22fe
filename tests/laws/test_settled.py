"""A settled build that is run again does nothing, changes nothing, and says so."""

from __future__ import annotations

import time

from tests.world_building import Workdir


def test_nothing_is_written(settled: Workdir) -> None:
    settled.run()  # the copy's metadata files have other times of change: the cache of their digests is renewed
    before = settled.listing()
    ended = settled.run()
    assert (ended.exit_code, ended.had_work) == (0, False)
    after = settled.listing()
    new = {name for name in after if name not in before}
    assert {name.split("/")[0] for name in new} <= {"runs"}
    assert {name: after[name] for name in before if name in after} == before


def test_the_command_says_so_in_about_a_second(settled: Workdir) -> None:
    assert settled.run().exit_code == 0
    start = time.monotonic()
    done = settled.cli()
    seconds = time.monotonic() - start
    assert done.returncode == 0
    assert "nothing to do" in done.stderr
    assert seconds < 5  # about one on an idle machine; the bound allows for a busy one
