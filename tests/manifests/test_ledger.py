from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.ledger import BooksDoNotCloseError, Departures, close_books, escape_detail, to_counts
from manifests.reasons import class_of, reasons


def departures(*rows: tuple[str, str, str], final: bool = True) -> Departures:
    found = Departures("download.fetch", final=final)
    for source, sample, reason in rows:
        found.add(source, sample, reason)
    return found


def test_books_that_close_are_kept_by_source() -> None:
    left = to_counts(departures(("cc3m", "a", "download.http_404"), ("wit", "b", "download.too_large")).frame())
    books = close_books("x", {"cc3m": 3, "wit": 1, "sbu": 2}, {"cc3m": 2}, left, {"sbu": {"filter.no_keyword": 2}})
    assert books["cc3m"].failed == {"download.http_404": 1}
    assert books["wit"].dropped == {"download.too_large": 1}
    assert books["sbu"].dropped == {"filter.no_keyword": 2}


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_a_row_too_many_or_too_few_is_refused(seen: int, kept: int, left: int) -> None:
    rows = to_counts(departures(*(("cc3m", str(i), "download.dns") for i in range(left))).frame())
    if seen == kept + left:
        close_books("x", {"cc3m": seen}, {"cc3m": kept}, rows, {})
    else:
        with pytest.raises(BooksDoNotCloseError, match="cc3m"):
            close_books("x", {"cc3m": seen}, {"cc3m": kept}, rows, {})


def test_only_what_may_be_counted_goes_unlisted() -> None:
    with pytest.raises(BooksDoNotCloseError, match="must be listed"):
        close_books("x", {"cc3m": 1}, {}, [], {"cc3m": {"filter.bad_url": 1}})


def test_a_transient_reason_is_deferred_until_the_last_round() -> None:
    row = ("cc3m", "a", "download.timeout")
    assert to_counts(departures(row, final=False).frame()) == [("cc3m", "deferred", "download.timeout", 1)]
    assert to_counts(departures(row).frame()) == [("cc3m", "failed", "download.timeout", 1)]
    assert class_of("download.http_404", final=False) == "failed"


def test_a_reason_off_the_list_is_refused() -> None:
    with pytest.raises(ValueError, match="not on the closed list"):
        departures(("cc3m", "a", "download.bored")).frame()


@given(st.text())
def test_details_are_short_and_printable(detail: str) -> None:
    shown = escape_detail(detail)
    assert len(shown.encode()) <= 200
    assert shown.isprintable()


def test_every_reason_of_the_contract_is_there() -> None:
    assert len(reasons()) == 9 + 10 + 7 + 7 + 8 + 3 + 1 + 2
    assert [r.name for r in reasons().values() if not r.in_ledger] == ["filter.no_keyword"]
    assert reasons()["dedup.benchmark_leak"].column == "leak"
    assert reasons()["dedup.empty"].column == "invalid"
