from dataclasses import asdict

from manifests.ledger import RowCounts
from manifests.sources import load_sources
from pipeline.books import add_up
from pipeline.funnel import COLUMNS, FunnelRow, funnel, funnel_closes, funnel_row, total

PUBLISHED = {key: spec.published for key, spec in load_sources().items() if spec.subset == "pub11"}


def books_of(steps):
    """Books by step from (source, in, {reason: rows}) entries; what does not leave is kept."""
    return {
        step: {
            source: RowCounts(
                seen=seen,
                kept=seen - sum(left.values()),
                **{"failed" if "http" in next(iter(left), "") else "dropped": left},
            )
            for source, seen, left in entries
        }
        for step, entries in steps.items()
    }


def published_books():
    steps = {name: [] for name in (
        "filter.match", "filter.pool", "download.fetch", "dedup.inspect", "dedup.cluster", "outlier.cut",
        "shard.plan", "shard.pack", "shard.index",
    )}  # fmt: skip
    for key, row in PUBLISHED.items():
        repeated = 7
        valid = row.download - row.invalid
        distinct = valid - row.duplicate
        steps["filter.match"].append(
            (key, row.amount, {"filter.no_keyword": row.amount - row.after_keyword - repeated})
        )
        steps["filter.pool"].append((key, row.after_keyword + repeated, {"filter.repeated_row": repeated}))
        steps["download.fetch"].append(
            (key, row.after_keyword, {"download.http_404": row.after_keyword - row.download})
        )
        steps["dedup.inspect"].append((key, row.download, {"dedup.undecodable": row.invalid}))
        copies = {"dedup.same_url": row.duplicate // 2, "dedup.near_duplicate": row.duplicate - row.duplicate // 2}
        steps["dedup.cluster"].append((key, valid, copies))
        steps["outlier.cut"].append((key, distinct, {"outlier.vlm": row.outlier}))
        for last in ("shard.plan", "shard.pack", "shard.index"):
            steps[last].append((key, distinct - row.outlier, {}))
    return books_of(steps)


def test_the_published_table_comes_out_of_its_own_numbers():
    books = published_books()
    rows = funnel(books, PUBLISHED)
    assert list(rows) == list(PUBLISHED)
    assert len(rows) == 11
    for key, row in rows.items():
        published = PUBLISHED[key].model_dump()
        wanted = {name: published[name] for name in COLUMNS if name in published}
        assert asdict(row) == {**wanted, "leak": None, "other": 0}
    sums = total(rows.values())
    assert (sums.after_keyword, sums.download, sums.invalid) == (6_121_583, 5_244_251, 236)
    assert (sums.duplicate, sums.outlier, sums.remain) == (1_224_790, 1_011_416, 3_007_809)
    assert (sums.leak, sums.other) == (None, 0)
    assert funnel_closes(books, rows).ok


def test_nothing_has_run():
    assert funnel_row({}, "sbu") == FunnelRow()
    assert total([]) == FunnelRow()
    assert funnel_closes({}, funnel({}, ["sbu"])).ok


def test_none_is_not_run_and_zero_is_run_and_none():
    books = books_of({
        "filter.match": [("cc3m", 10, {"filter.no_keyword": 6}), ("sbu", 5, {"filter.no_keyword": 5})],
        "filter.pool": [("cc3m", 4, {})],
        "download.fetch": [("cc3m", 4, {"download.http_404": 1})],
        "dedup.inspect": [("cc3m", 3, {})],
    })  # fmt: skip
    assert funnel_row(books, "cc3m") == FunnelRow(amount=10, after_keyword=4, download=3, invalid=0)
    assert funnel_row(books, "sbu") == FunnelRow(amount=5, after_keyword=0, download=0, invalid=0)
    assert funnel_row(books, "vg").amount is None
    assert total(funnel(books, ["cc3m", "sbu"]).values()) == FunnelRow(15, 4, 3, 0)


def test_rows_left_over_for_a_later_round_are_not_downloaded():
    books = {"download.fetch": {"cc3m": RowCounts(seen=5, kept=3, failed={"download.dns": 1},
                                                  deferred={"download.timeout": 1})}}  # fmt: skip
    assert funnel_row(books, "cc3m").download == 3


def test_leaks_and_other_reasons_count_in_what_remains():
    books = books_of({
        "download.fetch": [("cc3m", 9, {})],
        "dedup.inspect": [("cc3m", 9, {"dedup.empty": 1})],
        "dedup.cluster": [("cc3m", 8, {"dedup.benchmark_leak": 2, "dedup.semantic": 1})],
        "shard.plan": [("cc3m", 5, {"shard.excluded": 1})],
        "shard.index": [("cc3m", 4, {})],
    })  # fmt: skip
    row = funnel_row(books, "cc3m")
    assert (row.download, row.invalid, row.duplicate, row.leak, row.other, row.remain) == (9, 1, 1, 2, 1, 4)
    assert funnel_closes(books, {"cc3m": row}).ok


def test_a_funnel_that_does_not_close_is_named():
    books = books_of({"download.fetch": [("cc3m", 9, {})], "shard.index": [("cc3m", 8, {})]})
    broken = funnel_closes(books, funnel(books, ["cc3m"]))
    assert broken.ok is False
    assert broken.detail == "cc3m: 9 remain, 8 were released"


def test_books_add_up_over_partitions():
    one = {"a": RowCounts(seen=3, kept=1, dropped={"dedup.empty": 2})}
    two = {"a": RowCounts(seen=2, kept=1, failed={"download.dns": 1}), "b": RowCounts(seen=1, kept=1)}
    assert add_up([one, two]) == {
        "a": RowCounts(seen=5, kept=2, dropped={"dedup.empty": 2}, failed={"download.dns": 1}),
        "b": RowCounts(seen=1, kept=1),
    }
