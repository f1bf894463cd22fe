"""``run --retry failed`` asks again for what failed, and for nothing else."""

from __future__ import annotations

from collections import Counter

import polars as pl

from tests.world_building import Snapshot, Workdir


def test_only_urls_that_failed_are_asked_again(settled: Workdir, reference: Snapshot, asked: Counter[str]) -> None:
    ledgers = [settled.path / m.ledger.path for k, m in settled.manifests().items() if k.startswith("download.fetch/")]
    left = pl.concat([pl.read_parquet(path) for path in ledgers])
    failed = set(left.filter(pl.col("class") == "failed")["url"])
    dropped = set(left.filter(pl.col("class") == "dropped")["url"])
    assert failed
    assert dropped

    ended = settled.run(retry_failed=True)

    assert ended.exit_code == 0
    assert ended.had_work
    unheard = {url for url in failed if "nowhere." in url or "refuses." in url}
    assert set(asked) == failed - unheard
    final = {url for url in failed if asked[url] and left.filter(pl.col("url") == url)["reason"][0].endswith("404")}
    assert {asked[url] for url in final} == {1}  # a final failure is asked once a run, not once a round
    assert settled.snapshot().release == reference.release
    assert settled.snapshot().ledgers == reference.ledgers
    assert not settled.run().had_work
