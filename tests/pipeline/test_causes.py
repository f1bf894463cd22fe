"""Warnings name the cause and its numbers, once, and every class has something to do about it."""

import pytest

from manifests.reasons import reasons
from manifests.recipe import Recipe
from pipeline.causes import CAUSES, Warnings, by_cause
from pipeline.picture import Counts


def _counts(answered, **left):
    named = {f"download.{reason}": rows for reason, rows in left.items()}
    return Counts(urls=answered, answered=answered, images=answered - sum(left.values()), left=named)


def test_a_warning_has_the_share_the_reasons_and_what_to_do():
    (line,) = Warnings().due(_counts(10_000, dns_temporary=5_210, dns=890, http_404=400))
    assert line == (
        "61% of rows fail in DNS (download.dns_temporary 5,210, download.dns 890 of 10,000): the name servers do not "
        "keep up or cannot be reached; name others with download.network.nameservers"
    )


def test_names_that_do_not_exist_are_another_matter_than_name_servers_that_do_not_answer():
    (line,) = Warnings().due(_counts(1_000, dns_temporary=50, dns=400))
    assert line.startswith("45% of rows fail in DNS (download.dns 400, download.dns_temporary 50 of 1,000): the names")


@pytest.mark.parametrize("cause", [c for c in CAUSES if c.remedy], ids=lambda c: c.name)
def test_each_class_is_warned_of_from_its_bound_on_and_not_below(cause):
    at = round(1_000 * cause.bound)
    for reason in cause.reasons:
        (line,) = Warnings().due(_counts(1_000, **{reason: at}))
        assert line.startswith(f"{cause.bound:.0%} of rows {cause.how} (download.{reason} {at:,} of 1,000): ")
        assert line.isascii()
        assert "\n" not in line
        assert Warnings().due(_counts(1_000, **{reason: at - 1})) == []


def test_few_rows_say_nothing():
    assert Warnings().due(_counts(199, dns=199)) == []
    assert len(Warnings().due(_counts(200, dns=200))) == 1


def test_it_is_said_once_and_again_when_the_share_grew_by_half():
    warnings = Warnings()
    said = [len(warnings.due(_counts(1_000, timeout=rows))) for rows in (190, 200, 250, 299, 300, 400, 449, 450)]
    assert said == [0, 1, 0, 0, 1, 0, 0, 1]
    assert warnings.due(_counts(100_000, timeout=45_000)) == [], "more rows of the same share are nothing new"


def test_links_that_are_gone_are_no_trouble_of_ours():
    assert Warnings().due(_counts(1_000, http_404=900, http_410=50)) == []


def test_classes_are_told_apart_and_both_are_said():
    lines = Warnings().due(_counts(1_000, timeout=300, http_429=100))
    assert [line[:3] for line in lines] == ["30%", "10%"]


def test_reasons_and_settings_that_are_named_exist():
    keys = set(Recipe(name="x").flat())
    for cause in CAUSES:
        assert {f"download.{reason}" for reason in cause.reasons} <= set(reasons())
        for text in (cause.remedy, *cause.remedies.values()):
            words = [word.strip("(),;:.") for word in text.split()]
            assert {word for word in words if word.startswith("download.")} <= keys
    named = [reason for cause in CAUSES for reason in cause.reasons]
    assert len(named) == len(set(named))


def test_failures_by_class_come_the_most_first():
    counts = _counts(100, timeout=5, dns=3, dns_temporary=4, too_large=1, http_410=1, http_404=4)
    assert by_cause(counts) == [("DNS", 7), ("link gone", 5), ("timeout", 5), ("too_large", 1)]
