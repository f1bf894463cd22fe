"""Images that someone holds become rows of the web's lane: one a sample, with its own text and record."""

import json
import tarfile
from collections import Counter

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.identity import sample_id
from manifests.lexicon import load_lexicon
from manifests.schemas import LEDGER
from manifests.store import Store
from manifests.tables import rows_digest
from stages.archives import archive_digest, is_empty, own_name
from stages.filter.held import scan_held
from stages.filter.held_records import read_record
from stages.filter.matcher import Matcher
from stages.filter.pool import Pool
from stages.filter.rows import MetadataError
from stages.filter.sidecars import MAX_SIDECAR_BYTES
from tests.stages.archive_making import KINDS, add, jpeg, pack
from tests.stages.handing import Handed, perform, spec_of
from tests.stages.held_making import held, img2dataset_sample, rs5m_tar, write_wds


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def scan(store, uri, source=None, max_text_bytes=65_536):
    source = source or held()
    matcher = Matcher(load_lexicon("rs5m-1"), "stem", takes_all=source.keywords == "all")
    found = scan_held(store, source, uri, archive_digest(store, uri), matcher, max_text_bytes)
    rows_digest(spec_of("filter.match", "candidates"), found.frame)
    rows_digest(LEDGER, found.departures.frame())
    assert found.seen == found.frame.height + found.departures.frame().height + found.unmatched
    return found


def rows(found):
    return {row["source_key"]: row for row in found.frame.to_dicts()}


def bad(found):
    """(position, detail) of bad rows."""
    listed = [row for row in found.departures.frame().to_dicts() if row["reason"] == "filter.bad_row"]
    assert {row["sample_id"] for row in listed} <= {""}
    return {int(row["locator"].split(":")[1]): row["detail"] for row in listed}


def test_an_output_of_img2dataset(store, tmp_path):
    samples = {f"{n:09d}": img2dataset_sample(n, f"field {n}") for n in range(3)}
    uri = write_wds(tmp_path / "00000.tar", samples)
    found = scan(store, uri)
    row = rows(found)["000000001"]
    url = "mine:00000/000000001.jpg"
    assert (row["url"], row["sample_id"]) == (url, sample_id("mine", "000000001", url, ()))
    assert (row["text"], row["matched"], row["source"], row["subset"]) == ("field 1", [], "mine", "pub11")
    assert (row["width"], row["height"], row["licence"], row["credit"]) == (256, 200, "?", None)
    assert row["similarity"] == pytest.approx(0.31)
    extra = json.loads(row["extra"])
    assert (extra["url"], extra["original_width"]) == ("https://a.org/1.jpg", 1024)
    assert "error_message" not in extra
    # img2dataset takes the digest of what it fetched, before it resizes: it says nothing of the bytes held here.
    assert (row["source_hash"], extra["sha256"]) == (None, "0" * 64)
    assert (found.seen, found.ignored, found.unmatched) == (3, 6, 0)
    assert row["locator"] == f"{archive_digest(store, uri)[:12]}:1"


def test_a_released_tar(store, tmp_path):
    captions = {"0a": "aerial view, line one\nline two", "0b": "\u9ad8\u7a7a", "0c": ""}
    found = rows(scan(store, rs5m_tar(store, captions)))
    assert {key: row["text"] for key, row in found.items()} == captions
    assert found["0a"]["url"] == "mine:pub11-train-0000/0a.img_content"
    assert json.loads(found["0a"]["extra"]) == {"img_name": "cc3m_0a.jpg"}
    assert (found["0a"]["matched"], found["0b"]["matched"]) == (["aerial view"], [])


@pytest.mark.parametrize(("members", "text"), [
    ({"txt": b"of txt\r\n", "json": b'{"caption": "of json"}'}, "of txt"),
    ({"txt": b"of txt", "caption": b"of caption"}, "of caption"),
    ({"txt": b" \n", "json": b'{"TEXT": "of json"}'}, "of json"),
    ({"json": b'{"text": "of text", "caption": null}'}, "of text"),
    ({"json": b'{"caption": ["one", "", "two"]}'}, "one. two"),
    ({"json": b"\xef\xbb\xbf{}"}, ""), ({}, ""),
])  # fmt: skip
def test_where_the_text_stands(store, tmp_path, members, text):
    uri = write_wds(tmp_path / "t.tar", {"k": {"jpg": jpeg(), **members}})
    assert rows(scan(store, uri))["k"]["text"] == text


def test_the_recipe_names_columns(store, tmp_path):
    record = {"Title": "a port", "alt": ["x", "y"], "author": "A", "terms": "CC0", "src": "http://o.org/1", "w": "12"}
    members = {"jpg": jpeg(), "long.txt": b"long words", "txt": b"not this", "json": json.dumps(record).encode()}
    uri = write_wds(tmp_path / "t.tar", {"k": members})
    columns = {"credit": ["author"], "licence": ["terms"], "url": ["src"], "width": ["w"]}
    source = held(text=["title", "long.txt", "alt", "none"], columns=columns, licence="all", credit="all of us")
    row = rows(scan(store, uri, source))["k"]
    assert row["text"] == "a port. long words. x. y"
    assert (row["credit"], row["licence"], row["width"]) == ("A", "CC0", 12)
    assert json.loads(row["extra"]) == {"url": "http://o.org/1"}
    plain = rows(scan(store, write_wds(tmp_path / "u.tar", {"k": {"jpg": jpeg()}}), source))["k"]
    assert (plain["credit"], plain["licence"], plain["text"]) == ("all of us", "all", "")


def test_rows_may_need_a_keyword(store, tmp_path):
    samples = {
        "a": {"jpg": jpeg(), "txt": b"Satellite image"}, "b": {"jpg": jpeg(), "txt": b"a cat"}, "c": {"jpg": jpeg()},
        "d": {"txt": b"no image, no keyword"}, "e": {"txt": b"aerial view without image"},
        "f": {"jpg": jpeg(), "txt": b"aerial view " + b"x" * 30},
    }  # fmt: skip
    uri = write_wds(tmp_path / "t.tar", samples)
    found = scan(store, uri, held(keywords="match"), max_text_bytes=40)
    assert set(rows(found)) == {"a"}
    assert found.unmatched == 3
    assert bad(found) == {4: "e: no image"}
    (long,) = [row for row in found.departures.frame().to_dicts() if row["reason"] == "filter.text_too_long"]
    assert (long["value"], long["cut"], long["url"]) == (42.0, 40.0, "mine:t/f.jpg")
    everything = scan(store, uri, max_text_bytes=40)
    assert (set(rows(everything)), everything.unmatched) == ({"a", "b", "c"}, 0)
    assert rows(everything)["a"]["matched"] == ["satellite imag"]


def test_what_cannot_be_read_leaves_with_its_reason(store, tmp_path):
    deep = b'{"a":' * 5000 + b"1" + b"}" * 5000
    samples = {
        "a": {"json": b'{"status": "failed_to_download"}'}, "b": {"jpg": jpeg(), "json": b"[1]"},
        "c": {"jpg": jpeg(), "txt": b"\xff\xfe"}, "d": {"jpg": jpeg(), "json": b'{"caption": {"en": "x"}}'},
        "e": {"jpg": jpeg(), "json": b'{"x": "\\ud800"}'}, "f": {"jpg": jpeg(), "json": deep},
        "g": {"jpg": jpeg(), "txt": b"x" * (MAX_SIDECAR_BYTES + 1)}, "h": {"jpg": jpeg(), "png": jpeg()},
        "i": {"jpg": jpeg(), "json": b"{"}, "j": {"jpg": jpeg(), "json": b'{"width": NaN, "height": -1, "n": 1e999}'},
    }  # fmt: skip
    found = scan(store, write_wds(tmp_path / "t.tar", samples))
    said = bad(found)
    words = ["a: no image", "b: is no JSON object", "c: is no UTF-8", "d: caption holds dict, not text",
             "e: spells characters", "f: is nested too deeply", "g: g.txt: too large: 1048577", "h: 2 images",
             "i: is no JSON in UTF-8"]  # fmt: skip
    assert [said[n].startswith(word) for n, word in enumerate(words)] == [True] * 9
    assert (rows(found)["j"]["width"], rows(found)["j"]["height"], rows(found)["j"]["extra"]) == (None, None, None)


@pytest.mark.parametrize("depth", range(100, 1000, 50))
def test_a_record_of_any_depth_is_a_row_or_a_bad_row(store, tmp_path, depth):
    body = b'{"a":' * depth + b"1" + b"}" * depth
    found = scan(store, write_wds(tmp_path / "t.tar", {"k": {"jpg": jpeg(), "json": body}}))
    assert found.seen == 1


@given(st.binary(max_size=40) | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner:
       st.lists(inner) | st.dictionaries(st.text(), inner)).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_any_record_is_read_or_refused(body):
    try:
        said = read_record(body)
    except ValueError:
        return
    assert isinstance(said, dict)
    assert said == {} or body.lstrip().startswith(b"{")


@pytest.mark.parametrize("layout", ["webdataset", "imagefolder"])
def test_a_row_is_the_same_whatever_it_is_packed_in(store, tmp_path, layout):
    members = {f"d/{n}.{ending}": body for n in range(3)
               for ending, body in img2dataset_sample(n, f"harbour {n}").items()}  # fmt: skip
    found = []
    for kind in KINDS:
        pack(tmp_path / kind, "set", kind, members)
        found.append(scan(store, f"{kind}/set" if kind == "folder" else f"{kind}/set.{kind}", held(layout)))
    tables = [scanned.frame.drop("locator") for scanned in found]
    assert tables[0].height == 3
    assert all(table.equals(tables[0]) for table in tables)
    assert tables[0]["url"].to_list() == [f"mine:set/d/{n}.jpg" for n in range(3)]


def test_hostile_members_are_passed_over(store, tmp_path):
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for path in ("../up.jpg", "/etc/k.jpg", ".hidden.jpg", "a/../../b.jpg"):
            add(tar, path, jpeg())
        add(tar, "link.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(tar, "device.jpg", type=tarfile.CHRTYPE)
        add(tar, "k.jpg", jpeg(1))
        add(tar, "k.txt", b"first")
        add(tar, "k.txt", b"second")
    found = scan(store, "t.tar")
    assert {row["url"]: row["text"] for row in found.frame.to_dicts()} == {"mine:t/k.jpg": "second"}
    assert found.ignored == 8


def test_a_damaged_tar_fails_as_a_whole(store, tmp_path):
    uri = write_wds(tmp_path / "t.tar", {f"{n}": {"jpg": jpeg(n), "txt": b"x"} for n in range(9)})
    raw = (tmp_path / uri).read_bytes()
    for cut in (len(raw) // 2, 512 * 3, 700):
        (tmp_path / uri).write_bytes(raw[:cut])
        with pytest.raises(MetadataError, match="fetch it again"):
            scan(store, uri)


def test_an_archive_without_a_member_has_no_rows(store, tmp_path):
    """What img2dataset leaves where no download succeeded, and RS5M where a tar has no sample."""
    uri = write_wds(tmp_path / "t.tar", {})
    assert is_empty(store, uri)
    assert scan(store, uri).seen == 0
    (tmp_path / "empty").mkdir()
    for name, layout in [("empty", "imagefolder"), (pack(tmp_path, "x", "zip", {"a.csv": b"x"}), "webdataset")]:
        with pytest.raises(MetadataError, match="holds no image in the layout"):
            scan(store, name, held(layout))


def test_a_folder_of_tars_is_told_from_a_folder_of_samples(store, tmp_path):
    write_wds(tmp_path / "out" / "00000.tar", {"k": {"jpg": jpeg()}})
    (tmp_path / "out" / "00000_stats.json").write_text("{}")
    with pytest.raises(MetadataError, match=r"name the tars: FOLDER/\*.tar"):
        scan(store, "out")


def test_a_folder_with_a_table(store, tmp_path):
    lines = [{"file_name": "a.jpg", "text": "of table", "licence": "CC0"}, {"file_name": "gone.jpg"},
             {"file_name": "../a.jpg"}, {"file_name": "a.jpg", "text": "again"}, {"text": "nameless"}]  # fmt: skip
    members = {
        "metadata.jsonl": b"\xef\xbb\xbf" + b"\n".join(json.dumps(line).encode() for line in lines) + b"\n{\n\n",
        "a.jpg": jpeg(1), "b.PNG": jpeg(2), "b.txt": b"of txt", "sub/c.tif": jpeg(3), "sub/c.v2.webp": jpeg(4),
        "sub/metadata.csv": b'file_name,caption\r\nc.tif,"a, ""quoted""\nfield"\r\nc.v2.webp,short,wide\r\n',
    }  # fmt: skip
    found = scan(store, pack(tmp_path, "set", "folder", members), held("imagefolder"))
    told = {row["url"]: (row["text"], row["licence"]) for row in found.frame.to_dicts()}
    assert told == {
        "mine:set/a.jpg": ("of table", "CC0"), "mine:set/b.PNG": ("of txt", "unknown"),
        "mine:set/sub/c.tif": ('a, "quoted"\nfield', "unknown"), "mine:set/sub/c.v2.webp": ("", "unknown"),
    }  # fmt: skip
    no_json = "is no JSON in UTF-8: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
    assert [bad(found)[n] for n in range(4, 10)] == [
        "metadata.jsonl row 2: names 'gone.jpg', which is no image here",
        "metadata.jsonl row 3: names '../a.jpg', which is no image here",
        "metadata.jsonl row 4: names 'a.jpg' again",
        "metadata.jsonl row 5: names None, which is no image here",
        f"metadata.jsonl row 6: {no_json}",
        "sub/metadata.csv row 2: has more cells than columns",
    ]
    assert found.seen == 10


@pytest.mark.parametrize(
    ("body", "says"),
    [(b"name,text\na.jpg,x\n", "no column file_name"), (b"file_name\n\xff\n", "mend it"), (b"", "no column"),
     (b'file_name,text\na.jpg,"x\n', "mend it")],
)  # fmt: skip
def test_a_table_that_cannot_be_read(store, tmp_path, body, says):
    pack(tmp_path, "set", "folder", {"a.jpg": jpeg(), "metadata.csv": body})
    with pytest.raises(MetadataError, match=says):
        scan(store, "set", held("imagefolder"))


@pytest.mark.parametrize("uri", ["00000.tar", "s3://b/c/00000.tar.gz", "/x/00000.TGZ", "a/00000/", "00000.zip"])
def test_a_url_begins_with_the_archives_own_name(uri):
    assert own_name(uri) == "00000"


def test_rows_are_pooled_apart_from_the_webs(store, tmp_path):
    uri = write_wds(tmp_path / "t.tar", {f"{n}": {"jpg": jpeg(n)} for n in range(5)})
    web = scan(store, uri).frame.head(2).with_columns(source=pl.lit("mine2"))
    web = web.with_columns(url=pl.Series(["http://a.org/1", " mine2://b/2"]), sample_id=web["url"])
    tables = Handed(store, {("filter.match", "candidates"): {"x": scan(store, uri).frame, "y": web}})
    done = perform(Pool(), tables, {"filter.archive_rows": 3, "filter.buckets": 1})
    pooled = {name: set(frame["source"]) for name, frame in done.parts("candidates").items()}
    assert pooled == {"web-0000": {"mine2"}, "held-mine-0000": {"mine"}, "held-mine-0001": {"mine"}}
    assert Counter(len(frame) for frame in done.parts("candidates").values()) == {2: 2, 3: 1}
