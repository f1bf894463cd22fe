import re

import polars as pl

from manifests.reasons import reasons
from manifests.sources import PUB11, load_sources
from tests.pipeline.read_commands import ask


def truth(workdir):
    return pl.read_parquet(workdir.path / "world/truth.parquet")


def test_the_funnel_agrees_with_the_world_and_with_the_release(built):
    report = ask(built, "report", "--json").json
    rows = report["funnel"]["pub11"]["rows"]
    assert [row["source"] for row in rows] == list(PUB11)
    assert [row["name"] for row in rows] == [load_sources()[key].name for key in PUB11]
    amounts = dict(truth(built).group_by("source").len().iter_rows())
    released = dict(
        pl.read_parquet(built.path / "release/metafile/samples.parquet").group_by("source").len().iter_rows()
    )
    archives = report["funnel"]["rs3"]["rows"]
    assert [row["name"] for row in archives] == ["FMoW", "BEN", "MillionAID"]
    for row in [*rows, *archives]:
        assert row["amount"] == amounts[row["source"]]
        assert row["remain"] == released.get(row["source"], 0)
        assert row["remain"] == row["download"] - row["invalid"] - row["duplicate"] - row["outlier"] - row["other"]
        assert row["leak"] is None
        assert row["published"]["remain"] > 0
    assert sum(row["outlier"] for row in rows) > 0
    assert {(row["duplicate"], row["outlier"]) for row in archives} == {(0, 0)}
    assert [(row["original_split"], row["has_class_label"]) for row in archives] == [
        ("Train", True), ("Train", True), ("Test", False),
    ]  # fmt: skip
    for name, listed in (("pub11", rows), ("rs3", archives)):
        sums = report["funnel"][name]["total"]
        assert sums["amount"] == sum(amounts[row["source"]] for row in listed)
        assert sums["remain"] == sum(released.get(row["source"], 0) for row in listed)
    assert report["complete"] is True
    assert report["recipe"] == "nano"


def test_every_line_of_the_steps_closes_and_names_known_reasons(built):
    report = ask(built, "report", "--json").json
    assert report["steps"][0]["step"] == "filter.match"
    for line in report["steps"]:
        left = {**line["dropped"], **line["failed"], **line["deferred"]}
        assert line["in"] == line["kept"] + sum(left.values())
        assert set(left) <= set(reasons())
        assert line["partitions"]["done"] >= 1
        assert line["partitions"]["missing"] == line["partitions"]["failed"] == line["partitions"]["open"] == 0
    assert report["laws"] == [
        {"law": name, "ok": True, "detail": ""} for name in ("ledger_closes", "funnel_closes", "chain")
    ]
    assert len(report["staged"]) == 4
    assert sum(report["keywords"]["laion2b"].values()) >= 9
    assert report["facts"]["dedup.cluster"]["clusters"] > 0


def test_the_printed_table(built):
    answer = ask(built, "report")
    assert answer.exit_code == 0
    header, first = answer.out.splitlines()[:2]
    assert "After Keyword Filtering" in header
    assert "Leak" not in header
    assert "Other" not in header
    assert re.match(r"LAION2B +14 +9 ", first)
    assert "published" not in answer.out
    assert "dedup.near_duplicate" in answer.out
    assert "staged: " in answer.out
    assert "law chain: holds" in answer.out


def test_before_the_end_columns_are_unknown_not_zero(fresh):
    fresh.run(until="filter")
    report = ask(fresh, "report", "--json").json
    row = report["funnel"]["pub11"]["rows"][0]
    assert (row["amount"], row["after_keyword"]) == (14, 9)
    assert {row[name] for name in ("download", "invalid", "duplicate", "other", "remain")} == {None}
    assert report["complete"] is False
    assert all(law["ok"] for law in report["laws"])
    shown = ask(fresh, "report").out
    assert re.search(r"LAION2B +14 +9 +- +- ", shown)
    assert "not complete" in shown


def test_nothing_but_the_world(fresh):
    report = ask(fresh, "report", "--json").json
    assert {row["amount"] for row in report["funnel"]["pub11"]["rows"]} == {None}
    assert {line["partitions"]["missing"] for line in report["steps"]} == {1, 2, 3}
    assert all(law["ok"] for law in report["laws"])


def test_the_published_row_stands_below_only_where_the_recipe_is_the_papers():
    from io import StringIO

    from rich.console import Console

    from pipeline.report_text import print_report

    published = {"amount": 5, "amount_text": "5M", "after_keyword": 4, "download": 3, "remain": 1}
    row = {"source": "sbu", "name": "SBU", "amount": 9, "after_keyword": 8, "download": 7, "invalid": 0, "duplicate": 1,
           "leak": None, "outlier": None, "other": 2, "remain": 4, "published": published}  # fmt: skip
    report = {"recipe": "rs5m", "complete": True, "steps": [], "keywords": {}, "facts": {}, "staged": [],
              "skip": ["download.fetch/web-0001"], "laws": [{"law": "chain", "ok": False, "detail": "why"}],
              "funnel": {"pub11": {"rows": [row], "total": row}, "rs3": {"rows": [], "total": row}}}  # fmt: skip
    out = StringIO()
    print_report(report, Console(file=out, width=200))
    assert re.search(r"published +5M +4 +3 +-", out.getvalue())
    assert "Other" in out.getvalue()
    assert "run.skip, its rows are in no later step: download.fetch/web-0001" in out.getvalue()
    assert "law chain: BROKEN: why" in out.getvalue()
