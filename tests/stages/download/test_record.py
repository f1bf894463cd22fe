"""What a recorded answer is worth under other settings: it stands, is judged anew, or must be asked for again."""

import pytest

from stages.download.fetch import Fetch
from stages.download.record import Record, recorded
from tests.stages.handing import Before, Earlier, refused, rows_of, settings_of

URL = "http://a.org/1"
JPEG = {
    "sample_id": "s", "url": URL, "tar": "old.tar", "offset": 512, "length": 100, "sha256": "5", "media_type": "jpeg",
    "http_status": 200, "hash_verdict": "unknown",
}  # fmt: skip
REDIRECTED = JPEG | {"final_url": "http://b.org/1"}
EMPTY = JPEG | {"media_type": "empty", "length": 0}


def settings(**changed):
    defaults = {"max_bytes": 100, "media": ["jpeg", "png"], "max_redirects": 3, "allow_private": False}
    changed = {name.replace("__", "."): value for name, value in changed.items()}
    return settings_of(Fetch(), {f"download.{name}": value for name, value in (defaults | changed).items()})


def commit(*rows, left=(), **then):
    refusals = refused("download.fetch", *({"source": "cc3m", "sample_id": row["url"], **row} for row in left))
    return Earlier(settings(**then), {"fetched": rows_of("fetched", *rows)}, refusals)


def left(reason, **evidence):
    return {"url": URL, "reason": f"download.{reason}", **evidence}


def look_up(*commits, urls=(URL,), **now):
    return recorded(Before(commits), frozenset(urls), settings(**now))


def verdict(*commits, **now):
    """None where the url must be asked for again, "taken" where its body stands, else the reason."""
    record = look_up(*commits, **now).get(URL)
    return None if record is None else (record.reason or "taken").removeprefix("download.")


@pytest.mark.parametrize(
    ("row", "then", "now", "expected"),
    [
        (JPEG, {}, {}, "taken"),
        (JPEG, {}, {"max_bytes": 101}, "taken"),
        (JPEG, {"max_bytes": 500}, {"max_bytes": 100}, "taken"),
        (JPEG, {"max_bytes": 500}, {"max_bytes": 99}, "too_large"),
        (JPEG, {}, {"media": ["png"]}, "not_image"),
        (JPEG, {}, {"media": ["jpeg", "gif"]}, "taken"),
        (JPEG, {"max_bytes": 500}, {"max_bytes": 99, "media": ["png"]}, "too_large"),
        (EMPTY, {}, {"media": [], "max_bytes": 1}, "taken"),
        (JPEG, {}, {"max_redirects": 0}, "taken"),
        (REDIRECTED, {}, {}, "taken"),
        (REDIRECTED, {}, {"max_redirects": 4}, "taken"),
        (REDIRECTED, {}, {"max_redirects": 2}, None),
        (JPEG, {"allow_private": True}, {"allow_private": True}, "taken"),
        (JPEG, {"allow_private": True}, {}, None),
        (JPEG, {}, {"allow_private": True}, "taken"),
        (JPEG, {"consent__robots": False}, {}, None),
        (JPEG, {"consent__headers": False}, {}, None),
        (JPEG, {"consent__tdm": False}, {"consent__tdm": False}, "taken"),
        (JPEG, {}, {"consent__robots": False, "consent__headers": False, "consent__tdm": False}, "taken"),
        (JPEG, {"engine": "img2dataset"}, {}, None),
        (JPEG, {"engine": "img2dataset"}, {"engine": "img2dataset"}, "taken"),
        (JPEG, {}, {"engine": "img2dataset"}, "taken"),
        (JPEG, {}, {"on_hash_differs": "drop"}, "taken"),
    ],
)
def test_a_body_is_judged_anew(row, then, now, expected):
    assert verdict(commit(row, **then), **now) == expected


@pytest.mark.parametrize(
    ("reason", "then", "now", "stands"),
    [
        ("too_large", {}, {}, True),
        ("too_large", {}, {"max_bytes": 99}, True),
        ("too_large", {}, {"max_bytes": 101}, False),
        ("not_image", {}, {}, True),
        ("not_image", {}, {"media": ["png"]}, True),
        ("not_image", {}, {"media": ["png", "jpeg"]}, True),
        ("not_image", {}, {"media": ["jpeg", "png", "gif"]}, False),
        ("not_image", {}, {"media": ["gif"]}, False),
        ("too_many_redirects", {}, {"max_redirects": 3}, True),
        ("too_many_redirects", {}, {"max_redirects": 2}, True),
        ("too_many_redirects", {}, {"max_redirects": 4}, False),
        ("private_address", {}, {}, True),
        ("private_address", {}, {"allow_private": True}, False),
        ("private_address", {"allow_private": True}, {"allow_private": True}, True),
        ("bad_scheme", {}, {"max_bytes": 1_000, "media": ["gif"], "max_redirects": 9, "allow_private": True}, True),
    ],
)
def test_a_refusal_stands_unless_a_changed_setting_made_it(reason, then, now, stands):
    assert verdict(commit(left=[left(reason)], **then), **now) == (reason if stands else None)


@pytest.mark.parametrize(
    ("detail", "off", "stands"),
    [
        ("robots.txt: Disallow for *", {}, True),
        ("robots.txt: Disallow for *", {"consent__robots": False}, False),
        ("robots.txt: Disallow for *", {"consent__headers": False}, True),
        ("X-Robots-Tag: noai", {"consent__headers": False}, False),
        ("tdm-reservation: 1", {"consent__tdm": False}, False),
    ],
)
def test_an_opt_out_stands_while_it_is_heeded(detail, off, stands):
    assert verdict(commit(left=[left("opt_out", detail=detail)]), **off) == ("opt_out" if stands else None)


def test_rows_that_left_for_their_hash_are_asked_for_again():
    assert verdict(commit(left=[left("hash_differs", sha256="5")]), on_hash_differs="keep") is None


@pytest.mark.parametrize("reason", ["http_404", "http_410", "dns", "tls", "timeout", "http_5xx"])
def test_what_failed_is_taken_over_whatever_changed(reason):
    changed = {"max_bytes": 1_000, "media": ["gif"], "max_redirects": 9, "allow_private": True}
    assert verdict(commit(left=[left(reason, status=404)]), **changed) == reason


def test_a_deferred_row_was_never_answered():
    deferred = commit()
    deferred.left = refused("download.fetch", {"source": "cc3m", "sample_id": "s", **left("timeout")})
    assert verdict(deferred) == "timeout"
    deferred.left = deferred.left.with_columns(deferred.left["class"].replace("failed", "deferred"))
    assert verdict(deferred) is None


def test_a_body_that_is_too_large_today_says_by_how_much():
    record = look_up(commit(JPEG, max_bytes=500), max_bytes=99)[URL]
    assert {name: record.row[name] for name in ("status", "value", "cut")} == {"status": 200, "value": 100, "cut": 99}
    assert look_up(commit(JPEG), media=["png"])[URL].row["detail"] == "jpeg is not taken"


def test_the_cut_of_a_refusal_is_the_one_that_decides_today():
    too_large = commit(left=[left("too_large", value=5_000.0, cut=100.0)])
    assert look_up(too_large, max_bytes=50)[URL].row["cut"] == 50
    redirected = commit(left=[left("too_many_redirects", value=4.0, cut=3.0)])
    assert look_up(redirected, max_redirects=1)[URL].row["cut"] == 1
    unresolved = commit(left=[left("http_404", status=404, detail="HTTP status 404")])
    assert look_up(unresolved)[URL].row["detail"] == "HTTP status 404"


def test_a_body_that_stands_comes_whole():
    assert look_up(commit(REDIRECTED))[URL] == Record(None, rows_of("fetched", REDIRECTED).row(0, named=True))


def test_a_change_and_back_asks_for_nothing():
    """The current commit refused the body it had under a lower bound; the commit before it still holds the body."""
    before = commit(JPEG, max_bytes=500)
    current = commit(left=[left("too_large", value=100.0, cut=50.0)], max_bytes=50)
    record = look_up(current, before, max_bytes=500)[URL]
    assert (record.reason, record.row["tar"]) == (None, "old.tar")


def test_the_first_commit_that_can_decide_does_and_no_more_are_read():
    current, older = commit(JPEG | {"tar": "new.tar"}), commit(JPEG)
    assert look_up(current, older)[URL].row["tar"] == "new.tar"
    assert (current.reads, older.reads) == (1, 0)
    assert verdict(commit(left=[left("http_404")]), older) == "http_404"


def test_further_commits_are_read_for_what_is_left():
    here, elsewhere = commit(JPEG), commit(JPEG | {"url": "http://a.org/2", "tar": "elsewhere.tar"})
    found = look_up(here, elsewhere, urls=(URL, "http://a.org/2", "http://a.org/3"))
    assert {url: record.row["tar"] for url, record in found.items()} == {
        URL: "old.tar", "http://a.org/2": "elsewhere.tar",
    }  # fmt: skip


def test_a_body_goes_before_a_refusal():
    assert verdict(commit(JPEG, left=[left("timeout")])) == "taken"


def test_only_what_is_wanted_is_looked_up():
    assert look_up(commit(JPEG, left=[left("dns") | {"url": "http://a.org/2"}]), urls=("http://a.org/3",)) == {}
    assert look_up(commit(JPEG), urls=()) == {}
    assert look_up() == {}


def test_several_rows_of_one_url_are_one_record():
    both = commit(JPEG, JPEG | {"sample_id": "t"})
    assert list(look_up(both)) == [URL]


LISTED = JPEG | {"sha256": "5" * 64}


@pytest.mark.parametrize(
    ("row", "bodies", "expected"),
    [(LISTED, {"5" * 64}, "excluded"), (LISTED, {"6" * 64}, "taken"), (LISTED, set(), "taken")],
)
def test_a_body_that_a_list_names_is_told_from_the_record(row, bodies, expected):
    record = recorded(Before([commit(row)]), frozenset([URL]), settings(), None, frozenset(bodies))[URL]
    assert (record.reason or "taken").removeprefix("download.") == expected


def test_an_exclusion_stands_while_the_list_names_its_bytes_and_an_older_body_counts_afterwards():
    excluded, older = commit(left=[left("excluded", sha256="5" * 64)]), commit(LISTED)

    def reason(*commits, bodies):
        found = recorded(Before(commits), frozenset([URL]), settings(), None, frozenset(bodies)).get(URL)
        return found and (found.reason or "taken")

    assert reason(excluded, bodies={"5" * 64}) == "download.excluded"
    assert reason(excluded, older, bodies={"5" * 64}) == "download.excluded"
    assert reason(excluded, older, bodies={}) == "taken"
    assert reason(excluded, bodies={}) is None
