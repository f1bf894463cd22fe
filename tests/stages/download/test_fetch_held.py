"""download.fetch over held images: the bytes as they lie in the archive that a url names, and no request to the web."""

import pytest

from manifests.lexicon import load_lexicon
from manifests.source_specs import spec_params
from manifests.store import Store
from stages import archives
from stages.archives import archive_digest
from stages.download import asking, client, render
from stages.download.fetch import Fetch
from stages.filter.held import scan_held
from stages.filter.matcher import Matcher
from stages.images import Place, read_images
from tests.stages.archive_making import KINDS, jpeg, pack
from tests.stages.handing import Before, Handed, perform
from tests.stages.held_making import held, img2dataset_sample, rs5m_tar, write_wds


@pytest.fixture
def store(tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("the web was asked")

    monkeypatch.setattr(client, "fetch_all", refuse)
    monkeypatch.setattr(asking, "fetch_all", refuse)
    return Store(str(tmp_path))


def candidates(store, uri, source):
    matcher = Matcher(load_lexicon("rs5m-1"), "stem", takes_all=True)
    return scan_held(store, source, uri, archive_digest(store, uri), matcher, 1 << 16).frame.drop("locator")


def take(store, rows, named, source=None, prior=None, **changed):
    source = source or held()
    settings = {name.replace("__", "."): value for name, value in changed.items()}
    tables = Handed(store, {("filter.pool", "candidates"): rows})
    params = {**spec_params(source), "archives": named, "archive_digests": []}
    partition = f"held-{source.key}-0000"
    return perform(Fetch(), tables, settings, prior=prior or Before(), partition=partition, params=params)


def bodies(store, done):
    rows = done.table("fetched").to_dicts()
    places = [Place(row["tar"], row["offset"], row["length"], row["sha256"]) for row in rows]
    return {rows[index]["url"]: body for index, body in read_images(store, places)}


@pytest.mark.parametrize("layout", ["webdataset", "imagefolder"])
@pytest.mark.parametrize("kind", KINDS)
def test_images_are_taken_as_they_are(store, tmp_path, kind, layout):
    members = {f"d/{n}.{e}": b for n in range(3) for e, b in img2dataset_sample(n, "x").items()}
    uri, source = pack(tmp_path, "set", kind, members), held(layout)
    done = take(store, candidates(store, uri, source), [uri], source)
    assert bodies(store, done) == {f"mine:set/d/{n}.jpg": jpeg(n) for n in range(3)}
    row = done.table("fetched").row(0, named=True)
    assert (row["media_type"], row["rendered"], row["http_status"]) == ("jpeg", None, None)
    again = take(store, candidates(store, uri, source), ["gone.tar"], source, Before([done.earlier()]))
    assert again.result.facts == {"fetched_urls": 0, "recorded_urls": 3}
    other = take(store, candidates(store, uri, source), [uri], source, download__engine="img2dataset")
    assert other.result.facts == {"fetched_urls": 3, "recorded_urls": 0}  # no engine had a part in it


def test_a_released_tar(store):
    uri = rs5m_tar(store, {"0a": "one", "0b": "two"})
    done = take(store, candidates(store, uri, held()), [uri])
    assert bodies(store, done) == {f"mine:pub11-train-0000/0{c}.img_content": jpeg(n) for n, c in enumerate("ab")}


def test_what_is_not_taken_leaves_with_a_reason(store, tmp_path):
    samples = {"a": {"jpg": jpeg()}, "b": {"jpg": b"<html>"}, "c": {"png": jpeg(side=600)}, "d": {"jpg": b""}}
    rows = candidates(store, write_wds(tmp_path / "t.tar", samples), held())
    done = take(store, rows, ["t.tar"], download__max_bytes=5000)
    assert {row["url"]: row["reason"] for row in done.left().values()} == {
        "mine:t/b.jpg": "download.not_image", "mine:t/c.png": "download.too_large",
    }  # fmt: skip
    write_wds(tmp_path / "t.tar", {"a": {"jpg": jpeg()}})
    assert set(take(store, rows, ["t.tar"]).reasons().values()) == {"download.no_member"}


def test_only_the_archives_that_urls_name_are_opened(store, tmp_path, monkeypatch):
    opened = []
    real = archives.open_archive
    monkeypatch.setattr(render, "open_archive", lambda store, uri: opened.append(uri) or real(store, uri))
    for number in range(6):
        write_wds(tmp_path / f"{number:05d}.tar", {f"{number}-{n}": {"jpg": jpeg(10 * number + n)} for n in range(2)})
    rows = [candidates(store, f"{number:05d}.tar", held()) for number in (2, 4)]
    done = take(store, rows[0].vstack(rows[1]), ["*.tar"])
    assert (len(bodies(store, done)), opened) == (4, ["00002.tar", "00004.tar"])
