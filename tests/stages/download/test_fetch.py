"""download.fetch against a real server on loopback, in a thread of its own."""

import asyncio
import errno
import hashlib
import io
import tarfile

import polars as pl
import pytest
from aiohttp import web

from manifests.store import Store
from stages.download.fetch import Fetch
from stages.images import Place, read_images
from tests.stages.handing import NOTHING_BEFORE, Before, Handed, Site, perform, rows_of

JPEG, PNG = b"\xff\xd8\xff\xe0" + bytes(range(200)), b"\x89PNG\r\n\x1a\n" + bytes(300)
BODIES = {"/a": JPEG, "/b": PNG, "/same": JPEG, "/empty": b"", "/c": JPEG + b"c"}
WEB = "http://w.web.test"


async def serve(request):
    if request.path in BODIES:
        return web.Response(body=BODIES[request.path], headers={"ETag": '"e"'}, content_type="image/jpeg")
    if request.path == "/moved":
        return web.Response(status=302, headers={"Location": "/a"})
    if request.path == "/slow":
        await asyncio.sleep(5)
    if request.path == "/text":
        return web.Response(text="no picture " * 20)
    return web.Response(status=503 if request.path.startswith("/busy") else 404)


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


@pytest.fixture
def site():
    with Site(serve).serving() as up:
        yield up


def candidates(*paths, **columns):
    rows = [{"sample_id": f"{n:04d}", "source": "cc3m", "url": WEB + path, **columns} for n, path in enumerate(paths)]
    return rows_of("candidates", *rows)


def fetch(store, site, rows, prior=NOTHING_BEFORE, final=True, **changed):
    address = {"resolve": {".web.test": site.address, "gone.test": ""}, "attempts": 1, "total_s": 10.0}
    settings = {"download.allow_private": True}
    settings |= {f"download.network.{name}": value for name, value in address.items()}
    settings |= {name.replace("__", "."): value for name, value in changed.items()}
    tables = Handed(store, {("filter.pool", "candidates"): rows})
    return perform(Fetch(), tables, settings, prior=prior, partition="web-0001", final=final)


def bodies(store, done):
    """Bytes by sample id, read from where the rows say they are."""
    rows = done.table("fetched").to_dicts()
    places = [Place(row["tar"], row["offset"], row["length"], row["sha256"]) for row in rows]
    return {rows[index]["sample_id"]: body for index, body in read_images(store, places)}


def members(store, path):
    with tarfile.open(fileobj=io.BytesIO(store.read(path))) as tar:
        return [(member, tar.extractfile(member).read()) for member in tar.getmembers()]


def test_one_request_for_each_url_whoever_lists_it(store, site):
    rows = candidates("/a", "/b", "/a", "/404", "/404")
    rows = rows.with_columns(source=rows["source"].scatter([2, 4], "laion2b"))
    done = fetch(store, site, rows)
    assert site.requests == {"w.web.test/a": 1, "w.web.test/b": 1, "w.web.test/404": 1}
    assert bodies(store, done) == {"0000": JPEG, "0001": PNG, "0002": JPEG}
    assert done.reasons() == {"0003": "download.http_404", "0004": "download.http_404"}
    assert {source: (books.seen, books.kept) for source, books in done.books.items()} == {
        "cc3m": (3, 2), "laion2b": (2, 1),
    }  # fmt: skip
    assert done.result.facts == {"fetched_urls": 3, "recorded_urls": 0}


def test_what_a_row_records(store, site):
    done = fetch(store, site, candidates("/b", "/moved"))
    row = done.row("fetched", "0000")
    assert {name: row[name] for name in ("media_type", "http_status", "content_type", "etag", "final_url")} == {
        "media_type": "png", "http_status": 200, "content_type": "image/jpeg", "etag": '"e"', "final_url": None,
    }  # fmt: skip
    assert (row["length"], row["sha256"]) == (len(PNG), hashlib.sha256(PNG).hexdigest())
    assert done.row("fetched", "0001")["final_url"] == f"{WEB}/a"


def test_bytes_go_into_one_tar_with_fixed_headers(store, site):
    done = fetch(store, site, candidates("/a", "/b", "/same", "/empty", "/c"))
    (path,) = done.files("images")
    stored = store.read(path)
    assert path == f"data/download.fetch/web-0001/images-{hashlib.sha256(stored).hexdigest()[:12]}.tar"
    extensions = {JPEG: "jpg", PNG: "png", b"": "bin", JPEG + b"c": "jpg"}
    assert sorted((member.name, body) for member, body in members(store, path)) == sorted(
        (f"{hashlib.sha256(body).hexdigest()}.{extension}", body) for body, extension in extensions.items()
    )
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m, _ in members(store, path)} == {
        (0, 0, 0, "", "", 0o644)
    }
    for row in done.table("fetched").iter_rows(named=True):
        raw = store.read_range(row["tar"], row["offset"], row["length"])
        assert hashlib.sha256(raw).hexdigest() == row["sha256"]


def test_a_disk_that_does_not_answer_is_no_budget_that_is_used_up(store, site, monkeypatch):
    def fail(blocks, block):
        raise OSError(errno.ETIMEDOUT, "the disk does not answer")

    monkeypatch.setattr("stages.tars._Hashed._write", fail)
    monkeypatch.setattr("stages.tars._WRITE_BYTES", 1)
    monkeypatch.setattr("stages.tars._BYTES_BEHIND", 0)
    with pytest.raises(TimeoutError, match="the disk does not answer"):
        fetch(store, site, candidates("/a", "/b"))


def test_rows_done_before_are_not_asked_for_and_point_into_their_older_tar(store, site):
    first = fetch(store, site, candidates("/a", "/404"))
    site.requests.clear()
    rows = candidates("/a", "/404", "/b", "/a")
    second = fetch(store, site, rows, Before([first.earlier()]))
    assert site.requests == {"w.web.test/b": 1}
    assert bodies(store, second) == {"0000": JPEG, "0002": PNG, "0003": JPEG}
    assert second.reasons() == {"0001": "download.http_404"}
    assert second.result.facts == {"fetched_urls": 1, "recorded_urls": 2}
    ((old,), (new,)) = first.files("images"), second.files("images")
    assert [row["tar"] for row in second.table("fetched").sort("sample_id").to_dicts()] == [old, new, old]
    assert [member.name for member, _ in members(store, new)] == [f"{hashlib.sha256(PNG).hexdigest()}.png"]
    assert second.result.pointed == [old]


def test_nothing_new_makes_no_tar(store, site):
    rows = candidates("/a", "/b")
    first = fetch(store, site, rows)
    second = fetch(store, site, rows, Before([first.earlier()]))
    assert second.files("images") == []
    assert second.table("fetched").equals(first.table("fetched"))
    assert second.result.pointed == first.files("images")


def test_a_lower_bound_is_applied_to_the_record(store, site):
    rows = candidates("/a", "/b")
    first = fetch(store, site, rows)
    site.requests.clear()
    second = fetch(store, site, rows, Before([first.earlier()]), download__max_bytes=len(JPEG))
    assert not site.requests
    assert second.left()["0001"] | {"value": len(PNG), "cut": len(JPEG), "status": 200} == second.left()["0001"]
    assert second.reasons() == {"0001": "download.too_large"}
    third = fetch(store, site, rows, Before([second.earlier(), first.earlier()]))
    assert not site.requests
    assert bodies(store, third) == {"0000": JPEG, "0001": PNG}


@pytest.mark.parametrize(("final", "row_class"), [(False, "deferred"), (True, "failed")])
def test_a_transient_answer_is_deferred_until_the_last_round(store, site, final, row_class):
    done = fetch(store, site, candidates("/a", "/busy", "/404"), final=final)
    row = done.left()["0001"]
    assert (row["reason"], row["class"], row["status"]) == ("download.http_5xx", row_class, 503)
    assert done.left()["0002"]["class"] == "failed"
    assert done.books["cc3m"].kept == 1


def test_the_next_round_asks_for_what_was_deferred_and_for_nothing_else(store, site):
    rows = candidates("/a", "/busy", "/404")
    first = fetch(store, site, rows, final=False)
    site.requests.clear()
    second = fetch(store, site, rows, Before([first.earlier()]))
    assert site.requests == {"w.web.test/busy": 1}
    assert second.left()["0001"]["class"] == "failed"
    site.requests.clear()
    third = fetch(store, site, rows, Before([second.earlier()]))
    assert not site.requests
    assert third.result.ledger.equals(second.result.ledger)


def test_an_empty_body_counts_as_downloaded(store, site):
    row = fetch(store, site, candidates("/empty")).row("fetched", "0000")
    assert (row["media_type"], row["length"], row["sha256"]) == ("empty", 0, hashlib.sha256(b"").hexdigest())


def test_what_leaves_and_why(store, site):
    rows = candidates("/text", "/b", "/x", "/y")
    rows = rows.with_columns(url=rows["url"].scatter([2, 3], ["ftp://w.web.test/x", "http://gone.test/y"]))
    done = fetch(store, site, rows, download__max_bytes=250)
    assert done.reasons() == {
        "0000": "download.not_image", "0001": "download.too_large", "0002": "download.bad_scheme",
        "0003": "download.dns",
    }  # fmt: skip
    assert {key: row["url"] for key, row in done.left().items()} == dict(rows.select("sample_id", "url").rows())
    assert done.left()["0001"]["value"] == len(PNG)
    assert done.files("images") == []
    assert done.table("fetched").is_empty()


def test_a_server_at_home_is_not_asked(store, site):
    done = fetch(store, site, candidates("/a"), download__allow_private=False)
    assert done.reasons() == {"0000": "download.private_address"}
    assert not site.requests


def test_a_partition_that_runs_out_of_time_stays_open(store, site):
    """What was not asked has not failed, not even in the last round; what was fetched is kept."""
    rows = candidates("/a", "/slow")
    done = fetch(store, site, rows, run__partition_deadline_s=2.0)
    assert bodies(store, done) == {"0000": JPEG}
    row = done.left()["0001"]
    assert (row["reason"], row["class"]) == ("download.timeout", "deferred")
    assert "not asked" in row["detail"]


def test_no_rows(store, site):
    done = fetch(store, site, candidates())
    assert done.table("fetched").is_empty()
    assert (done.files("images"), done.books) == ([], {})


SHA256 = hashlib.sha256(JPEG).hexdigest()


def test_a_verdict_belongs_to_the_row_not_to_the_url(store, site):
    rows = candidates("/a", "/a", "/a", source_hash_kind="sha256")
    rows = rows.with_columns(source_hash=rows["source_hash"].scatter([0, 1], [SHA256, "0" * 64]))
    done = fetch(store, site, rows)
    assert done.table("fetched").sort("sample_id")["hash_verdict"].to_list() == ["match", "differs", "unknown"]
    again = fetch(store, site, rows, Before([done.earlier()]))
    assert again.table("fetched").equals(done.table("fetched"))


def test_rows_leave_for_their_hash_where_that_is_asked_for_and_others_of_the_url_stay(store, site):
    md5 = hashlib.md5(JPEG).hexdigest()
    rows = candidates("/a", "/a", "/b", source_hash_kind="md5")
    rows = rows.with_columns(source_hash=rows["source_hash"].scatter([0, 1, 2], [md5, "0" * 32, "1" * 32]))
    kept = fetch(store, site, rows)
    assert kept.table("fetched").sort("sample_id")["hash_verdict"].to_list() == ["match", "differs", "differs"]
    assert kept.result.facts["hash_verdicts"] == {"cc3m": {"match": 1, "differs": 2}}
    dropped = fetch(store, site, rows, Before([kept.earlier()]), download__on_hash_differs="drop")
    assert dropped.table("fetched")["sample_id"].to_list() == ["0000"]
    assert set(dropped.result.ledger["reason"]) == {"download.hash_differs"}
    assert site.requests.total() == 2


def test_a_column_that_is_no_hash_of_these_images_is_named(store, site):
    rows = candidates(*["/a"] * 60, source_hash_kind="sha256", source_hash="0" * 64)
    (line,) = fetch(store, site, rows).result.facts["suspicions"]
    assert line.startswith("cc3m: 100%")


def test_a_picture_with_many_captions_at_few_urls_is_no_placeholder(store, site):
    rows = candidates(*["/a", "/same", "/same?1"] * 4).with_columns(text=pl.Series([f"caption {n}" for n in range(12)]))
    assert "placeholders" not in fetch(store, site, rows).result.facts
