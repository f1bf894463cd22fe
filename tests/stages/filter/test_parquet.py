import gzip
import io
import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.lexicon import load_lexicon
from manifests.sources import SourceSpec, load_sources
from stages.filter import parquet as parquet_module
from stages.filter.matcher import Matcher
from stages.filter.parquet import BATCH_ROWS, row_groups, scan_parquet
from stages.filter.rows import HITS, MetadataError
from stages.filter.unreadable import as_parquet

MATCHER = Matcher(load_lexicon("rs5m-1"), "stem")
SOURCES = load_sources()
LAION = SOURCES["laion2b"]


def parquet(columns, **options):
    buffer = io.BytesIO()
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), buffer, **options)
    return buffer


def scan(columns, spec=LAION, **options):
    """Scan a whole table, both ways; hits as dicts, bad rows, rows seen."""
    buffer = columns if isinstance(columns, io.BytesIO) else parquet(columns, **options)
    careful = scanned(buffer, spec, None)
    with tempfile.TemporaryDirectory() as scratch:
        assert scanned(buffer, spec, Path(scratch)) == careful
    return careful


def scanned(buffer, spec, scratch):
    """A file without a path goes through pyarrow, unless there is a scratch to lay it into."""
    scans = list(scan_parquet(buffer, spec, 0, len(row_groups(buffer)), MATCHER, scratch))
    assert all(one.hits.schema.equals(HITS) for one in scans)
    hits = [hit for one in scans for hit in one.hits.to_pylist()]
    return hits, [row for one in scans for row in one.bad], sum(one.rows_seen for one in scans)


def unchecked(values, kind):
    """A text column whose bytes nobody checked, as files in the wild have."""
    return pa.array(values, pa.binary()).cast(kind) if kind == pa.binary() else pa.Array.from_buffers(
        kind, len(values), pa.array(values, pa.binary()).buffers()
    )  # fmt: skip


def test_a_laion_row_in_full():
    table = {
        "SAMPLE_ID": [7, 8, 9],
        "URL": ["http://a/1.jpg", "http://a/2.jpg", "http://a/3.jpg"],
        "TEXT": ["a red car", "Satellite imagery of MODIS", None],
        "HEIGHT": pa.array([1, 480, 3], pa.int64()),
        "WIDTH": pa.array([1.0, 640.0, float("nan")], pa.float64()),
        "LICENSE": ["?", "?", "?"],
        "NSFW": ["UNLIKELY", "UNSURE", "NSFW"],
        "similarity": [0.1, 0.25, 0.3],
        "hash": [1, -9007199254740993, 3],
        "punsafe": pa.array([0.5, 0.125, 0.5], pa.float32()),
        "pwatermark": [0.5, 0.75, None],
    }
    hits, bad, seen = scan(table)
    assert (bad, seen) == ([], 3)
    assert hits == [
        {
            "row": 1,
            "url": "http://a/2.jpg",
            "texts": ["Satellite imagery of MODIS"],
            "text": "Satellite imagery of MODIS",
            "matched": ["satellite imag", "MODIS"],
            "source_key": None,
            "width": 640,
            "height": 480,
            "similarity": 0.25,
            "nsfw": 0.125,
            "nsfw_label": "UNSURE",
            "watermark": 0.75,
            "licence": "?",
            "source_hash": None,
            "source_hash_kind": None,
            "lon": None,
            "lat": None,
            "taken_at": None,
            "language": None,
            "credit": None,
            "group": None,
            "tags": None,
            "extra": '{"SAMPLE_ID":8,"hash":-9007199254740993}',
        }
    ]


def test_the_successor_of_laion5b_names_its_columns_otherwise():
    ((hit,), _, _) = scan({"key": [5], "url": ["http://a"], "caption": ["aerial view"], "width": [640]})
    assert (hit["url"], hit["text"], hit["width"], hit["extra"]) == ("http://a", "aerial view", 640, '{"key":5}')


def test_a_coyo_row_brings_its_key_and_its_phash():
    table = {
        "id": [841814333321],
        "url": ["http://a"],
        "text": ["An aerial photo"],
        "image_phash": ["eafda1a5ab4c8ae5"],
        "clip_similarity_vitb32": [0.5],
        "clip_similarity_vitl14": [0.25],
        "nsfw_score_opennsfw2": [0.0625],
        "watermark_score": [0.5],
    }
    ((hit,), _, _) = scan(table, SOURCES["coyo700m"])
    assert hit["source_key"] == "841814333321"
    assert (hit["source_hash"], hit["source_hash_kind"]) == ("eafda1a5ab4c8ae5", "phash64")
    assert (hit["similarity"], hit["nsfw"], hit["watermark"]) == (0.5, 0.0625, 0.5)
    assert hit["extra"] == '{"clip_similarity_vitl14":0.25}'


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.large_string()), pa.list_(pa.binary())])
def test_laioncoco_matches_and_joins_all_its_captions(kind):
    captions = [["a map", "an aerial view"], None, [], ["a dog", None, "  "], ["aerial", "view"]]
    table = {
        "URL": list("abcde"),
        "TEXT": ["satellite image"] * 5,
        "top_caption": ["a city", "aerial view", "a cat", "usgs", "x"],
        "all_captions": pa.array(captions).cast(kind),
    }
    hits, bad, seen = scan(table, SOURCES["laioncoco"])
    assert (bad, seen) == ([], 5)
    assert [(hit["row"], hit["texts"], hit["text"]) for hit in hits] == [
        (0, ["a city", "a map", "an aerial view"], "a city. a map. an aerial view"),
        (1, ["aerial view", ""], "aerial view"),
        (3, ["usgs", "a dog", "", "  "], "usgs. a dog"),
    ]
    assert hits[0]["extra"] == '{"TEXT":"satellite image"}'


def test_rows_keep_their_place_over_batches_and_row_groups():
    rows = 2 * BATCH_ROWS + 100
    at = [0, 1, BATCH_ROWS - 1, BATCH_ROWS, BATCH_ROWS + 17, 2 * BATCH_ROWS, rows - 1]
    captions = np.full(rows, "nothing", object)
    captions[at] = "a landsat scene"
    urls = [f"http://a/{row}" for row in range(rows)]
    spec = SOURCES["laioncoco"]
    buffer = parquet(
        {"URL": urls, "top_caption": [""] * rows, "all_captions": [["", caption] for caption in captions]},
        row_group_size=50_000,
    )
    assert row_groups(buffer) == [50_000, rows - 50_000]
    hits, _, seen = scan(buffer, spec)
    assert (seen, [hit["row"] for hit in hits]) == (rows, at)
    assert [hit["url"] for hit in hits] == [urls[row] for row in at]
    second = list(scan_parquet(buffer, spec, 1, 2, MATCHER))
    assert sum(one.rows_seen for one in second) == rows - 50_000
    assert [row for one in second for row in one.hits["row"].to_pylist()] == [row for row in at if row >= 50_000]
    assert max(one.rows_seen for one in second) <= BATCH_ROWS


@pytest.mark.parametrize(
    ("column", "pixels"),
    [
        (pa.array([640], pa.int32()), 640),
        (pa.array([640], pa.uint16()), 640),
        (pa.array([640.0], pa.float32()), 640),
        (pa.array(["640"]), 640),
        (pa.array([None], pa.float64()), None),
        (pa.array([float("inf")]), None),
        (pa.array([0]), None),
        (pa.array([-1]), None),
        (pa.array([2**40]), None),
        (pa.array(["wide"]), None),
    ],
)
def test_a_width_of_any_type(column, pixels):
    ((hit,), _, _) = scan({"url": ["u"], "text": ["aerial map"], "width": column})
    assert hit["width"] == pixels


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.dictionary(pa.int32(), pa.string())]
)
def test_text_and_url_of_any_text_type(kind):
    texts = pa.array(["aerial map", None, "aerial map"]).cast(kind)
    hits, bad, _ = scan({"Url": pa.array(["u", "v", None]).cast(kind), "tEXT": texts})
    assert [(hit["row"], hit["url"], hit["text"], hit["extra"]) for hit in hits] == [
        (0, "u", "aerial map", None),
        (2, None, "aerial map", None),
    ]
    assert bad == []


def test_an_all_null_text_column_and_an_empty_file_are_no_error():
    assert scan({"URL": ["u"], "TEXT": pa.nulls(1)}) == ([], [], 1)
    assert scan({"URL": pa.array([], pa.string()), "TEXT": pa.array([], pa.string())}) == ([], [], 0)


def test_an_exact_name_goes_before_another_case():
    hits, _, _ = scan({"url": ["lower"], "URL": ["upper"], "TEXT": ["aerial map"]})
    assert hits[0]["url"] == "upper"
    assert hits[0]["extra"] == '{"url":"lower"}'


def test_a_row_that_is_not_utf8_is_bad_only_where_it_matches():
    texts = [b"aerial view \xff", b"a dog \xff", b"\xffaerial view", b"usgs", b"xmodis", b"usgs"]
    urls = [b"u", b"u", b"u", b"u", b"\xff", b"\xff"]
    for kind in (pa.string(), pa.binary()):
        hits, bad, seen = scan({"URL": unchecked(urls, kind), "TEXT": unchecked(texts, kind)})
        assert seen == 6
        assert [hit["row"] for hit in hits] == [3]
        assert [row for row, _ in bad] == [0, 2, 5]
        assert all("utf-8" in why and len(why) <= 200 for _, why in bad)


def test_extra_is_canonical_json_and_holds_no_blobs():
    table = {
        "URL": ["u"],
        "TEXT": ["aerial map"],
        "zeta": [float("nan")],
        "b": [{"y": 1, "x": [b"\x01", None]}],
        "a": ["\u00e9\n"],
        "when": [datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)],
        "none": pa.nulls(1, pa.string()),
        "jpg": [b"\xff\xd8"],
    }
    ((hit,), _, _) = scan(table)
    assert hit["extra"] == '{"a":"\u00e9\\n","b":{"x":["01",null],"y":1},"when":"2020-01-02T03:04:05+00:00"}'
    assert json.loads(hit["extra"])["a"] == "\u00e9\n"


def test_a_source_of_ones_own_may_name_place_and_time():
    spec = SourceSpec.model_validate(
        {
            "key": "mine",
            "name": "Mine",
            "format": "parquet",
            "text": ["caption"],
            "columns": {"url": ["u"], "lon": ["x"], "lat": ["y"], "taken_at": ["t"], "source_key": ["k"]},
        }
    )
    table = {"u": ["u"], "caption": ["NAIP"], "x": [12.5], "y": ["-3.25"], "t": ["2020-05"], "k": [3.0]}
    ((hit,), _, _) = scan(table, spec)
    assert (hit["lon"], hit["lat"], hit["taken_at"], hit["source_key"]) == (12.5, -3.25, "2020-05", "3")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (
            {"TEXT": ["t"], "caption": ["c"]},
            "no url column URL, which source laion2b needs; its columns are TEXT, caption",
        ),
        ({"URL": ["u"], "title": ["c"]}, "no text column TEXT or caption"),
        ({"URL": ["u"], "TEXT": [1]}, "column TEXT holds int64, not text"),
        ({"URL": [["u"]], "TEXT": ["t"]}, "column URL holds list"),
        (pa.table([["u"], ["u"], ["t"]], names=["URL", "URL", "TEXT"]), "stands twice"),
    ],
)
def test_a_file_that_lacks_what_its_source_promises(table, words):
    with pytest.raises(MetadataError, match=words):
        scan(table)


def test_a_damaged_file_is_a_metadata_error(tmp_path):
    path = tmp_path / "part-0.parquet"
    path.write_bytes(b"this is no parquet file at all")
    with path.open("rb") as file, pytest.raises(MetadataError, match=r"part-0\.parquet: not readable as Parquet"):
        row_groups(file)
    whole = bytearray(parquet({"URL": ["u" * 99] * 999, "TEXT": ["usgs"] * 999}).getvalue())
    with pytest.raises(MetadataError, match="not readable"):
        row_groups(io.BytesIO(bytes(whole[:-20])))
    whole[4:60] = bytes(56)
    with pytest.raises(MetadataError, match="not readable"):
        scan(io.BytesIO(bytes(whole)))
    with pytest.raises(MetadataError, match="not readable"):
        row_groups(io.BytesIO())


def test_trouble_of_the_storage_passes_through():
    class Broken(io.BytesIO):
        def read(self, *_):
            raise ConnectionResetError(104, "gone")

    with pytest.raises(ConnectionResetError):
        row_groups(Broken(parquet({"URL": ["u"], "TEXT": ["t"]}).getvalue()))


def test_row_groups_that_are_not_there():
    buffer = parquet({"URL": ["u"], "TEXT": ["t"]})
    with pytest.raises(ValueError, match="row groups 0 to 2 asked for, it has 1"):
        list(scan_parquet(buffer, LAION, 0, 2, MATCHER))


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (gzip.compress(b"a,b", mtime=0), "packed with gzip"),
        (b' [{"url": "u"}]', "JSON"),
        (b"\xef\xbb\xbfurl\tcaption\n", "text"),
        (b"\x00\x01\x02\x03", "other bytes"),
    ],
)
def test_a_file_of_another_kind_is_not_to_be_fetched_again(head, what):
    with pytest.raises(MetadataError) as caught:
        row_groups(io.BytesIO(head * 9))
    assert f"not readable as Parquet (it looks like {what}); check that the file belongs to this" in str(caught.value)
    assert "fetch" not in str(caught.value)


def test_too_little_memory_is_told_of_the_file():
    with (
        pytest.raises(MetadataError, match=r"need more memory than there is .* smaller row groups"),
        as_parquet(io.BytesIO(), MetadataError),
    ):
        raise pa.ArrowMemoryError("malloc of size 9 failed")


BOMB = """
import sys
import pyarrow as pa, pyarrow.parquet as pq
from manifests.lexicon import load_lexicon
from manifests.sources import SourceSpec
from stages.filter.matcher import Matcher
from stages.filter.parquet import scan_parquet

kind, path = sys.argv[1:]
rows = 20_000
large = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["a dog is " * 6_700]))
lists = pa.ListArray.from_arrays(pa.array(range(rows + 1), pa.int32()), large)
said = pa.array(["aerial view"] * rows)
table = {"url": pa.array([f"http://a.org/{row}" for row in range(rows)])} | {
    "text": {"text": large},
    "list": {"text": lists},
    "other": {"text": pa.array(["a dog", "aerial view"] * (rows // 2)), "other": large},
}[kind]
pq.write_table(pa.table(table), path, store_schema=False)
spec = SourceSpec(key="mine", name="mine", format="parquet", columns={"url": ["url"]}, text=["text"])
with open(path, "rb") as file:
    scans = list(scan_parquet(file, spec, 0, 1, Matcher(load_lexicon("rs5m-1"), "stem")))
    print(sum(scan.rows_seen for scan in scans))
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]))
"""


@pytest.mark.parametrize("kind", ["text", "list"])
def test_a_text_that_all_rows_name_takes_no_more_memory_than_others(tmp_path, kind):
    """1.2 GB of text in a file of some kilobytes."""
    path = tmp_path / "m.parquet"
    said = subprocess.run([sys.executable, "-c", BOMB, kind, str(path)], check=True, capture_output=True, text=True)
    rows, peak_kib = map(int, said.stdout.split())
    assert path.stat().st_size < 1 << 20
    assert rows == 20_000
    assert peak_kib < 1 << 20


def test_batches_are_cut_by_the_bytes_of_their_text(monkeypatch):
    texts = ["usgs", None, "usgs " + "x" * 5000, "", "a dog", "usgs " + "x" * 5000] * 50
    table = {
        "URL": [f"u{row}" for row in range(300)],
        "TEXT": texts,
        "other": pa.array([[text, "y"] if text else None for text in texts]),
        "more": pa.array([[text] * 2 for text in texts], pa.list_(pa.string(), 2)),
        "deep": [{"a": text} for text in texts],
    }
    buffer = parquet(table, row_group_size=130)
    whole = scanned(buffer, LAION, None)
    monkeypatch.setattr(parquet_module, "BATCH_BYTES", 20_000)
    scans = list(scan_parquet(buffer, LAION, 0, 3, MATCHER))
    assert scanned(buffer, LAION, None) == whole
    assert len(scans) > 20
    assert [hit["row"] for hit in whole[0]] == [row for row in range(300) if row % 6 in (0, 2, 5)]
    assert json.loads(whole[0][1]["extra"]) == {
        "other": [texts[2], "y"], "more": [texts[2]] * 2, "deep": {"a": texts[2]}
    }  # fmt: skip
