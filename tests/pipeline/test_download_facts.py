"""What partitions of downloads state, put together for the report, and how it is printed."""

from io import StringIO

from rich.console import Console

from pipeline.download_facts import download_facts
from pipeline.report_text import print_report


def _placeholder(digest, urls, texts):
    return {"sha256": digest * 64, "urls": urls, "texts": texts}


def _printed(facts):
    report = {"recipe": "mini", "complete": True, "steps": [], "keywords": {}, "facts": {"download.fetch": facts},
              "staged": [], "skip": [], "laws": [], "funnel": {"pub11": {"rows": []}, "rs3": {"rows": []}}}  # fmt: skip
    out = StringIO()
    print_report(report, Console(file=out, width=160))
    return out.getvalue()


def test_nothing_stated_is_nothing_found():
    assert download_facts([{"fetched_urls": 3}, {}]) == {}
    assert _printed({}) == ""


def test_hash_verdicts_are_summed_by_source():
    facts = [
        {"hash_verdicts": {"redcaps": {"match": 3, "near": 0, "differs": 1, "unknown": 2}}},
        {"hash_verdicts": {"redcaps": {"match": 1, "unknown": 1}, "coyo700m": {"near": 2}}},
    ]
    found = download_facts(facts)
    assert found == {
        "hash_verdicts": {
            "coyo700m": {"match": 0, "near": 2, "differs": 0, "unknown": 0},
            "redcaps": {"match": 4, "near": 0, "differs": 1, "unknown": 3},
        }
    }
    lines = [line.split() for line in _printed(found).splitlines()]
    assert ["redcaps", "4", "0", "1", "3"] in lines
    assert ["coyo700m", "0", "2", "0", "0"] in lines


def test_where_no_source_publishes_hashes_nothing_is_printed_of_them():
    found = download_facts([{"hash_verdicts": {"sbu": {"match": 0, "near": 0, "differs": 0, "unknown": 9}}}])
    assert found["hash_verdicts"]["sbu"]["unknown"] == 9
    assert _printed(found) == ""


def test_placeholders_are_put_together_over_partitions_and_few_urls_are_none():
    facts = [
        {"placeholders": [_placeholder("a", 6, 6), _placeholder("b", 12, 19)]},
        {"placeholders": [_placeholder("a", 5, 5), _placeholder("c", 9, 9), _placeholder("d", 40, 3)]},
        {"placeholders": []},
    ]
    found = download_facts(facts)["placeholders"]
    assert [(p["sha256"][0], p["urls"]) for p in found] == [("b", 12), ("a", 11)]
    text = _printed({"placeholders": found})
    assert f"12 urls with 19 texts gave the same bytes, a placeholder by the look: sha256 {'b' * 64}\n" in text
    assert len(text.splitlines()) == 2


def test_of_many_placeholders_ten_are_printed():
    text = _printed({"placeholders": [_placeholder("a", 100 - number, 5) for number in range(13)]})
    assert len(text.splitlines()) == 11
    assert text.endswith("and 3 more such images; report --json lists all\n")
