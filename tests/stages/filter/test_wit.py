import csv
import gzip
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.lexicon import load_lexicon
from manifests.sources import load_sources
from stages.filter.matcher import Matcher
from stages.filter.rows import HITS, MetadataError
from stages.filter.wit import scan_wit

MATCHER = Matcher(load_lexicon("rs5m-1"), "stem")
WIT = load_sources()["wit"]
COLUMNS = """
    language page_url image_url page_title section_title hierarchical_section_title
    caption_reference_description caption_attribution_description caption_alt_text_description mime_type
    original_height original_width is_main_image attribution_passes_lang_id page_changed_recently
    context_page_description context_section_description
""".split()


def table(*rows, columns=COLUMNS, end="\n"):
    """WIT as its makers write it: a csv writer with tabs."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, columns, delimiter="\t", lineterminator=end, extrasaction="ignore")
    writer.writeheader()
    writer.writerows({"language": "en", "image_url": "http://a/x.jpg", "original_height": 3, **row} for row in rows)
    return file.getvalue().encode()


def scan(data, **options):
    scans = list(scan_wit(io.BytesIO(data), WIT, MATCHER, **options))
    assert all(one.hits.schema.equals(HITS) for one in scans)
    hits = [hit for one in scans for hit in one.hits.to_pylist()]
    return hits, [bad for one in scans for bad in one.bad], sum(one.rows_seen for one in scans)


def test_a_row():
    row = {
        "caption_reference_description": 'The "dish"', "caption_attribution_description": "English: Aerial view of it",
        "caption_alt_text_description": "", "original_width": "640", "context_page_description": "One.\nTwo\tthree.",
        "page_title": "Dish", "mime_type": "image/jpeg",
    }  # fmt: skip
    ((hit,), bad, seen) = scan(gzip.compress(table({"page_title": "aerial view"}, row)))
    assert (bad, seen, hit["row"]) == ([], 2, 1)
    assert hit["texts"] == ['The "dish"', "English: Aerial view of it", ""]
    assert hit["text"] == 'The "dish". English: Aerial view of it'
    assert (hit["width"], hit["height"], hit["language"], hit["url"]) == (640, 3, "en", "http://a/x.jpg")
    assert '"context_page_description":"One.\\nTwo\\tthree."' in hit["extra"]


def test_the_three_descriptions_are_matched_and_nothing_else():
    rows = [{column: "an aerial view"} for column in COLUMNS if column not in ("language", "image_url")]
    hits, bad, seen = scan(table(*rows))
    assert (bad, seen) == ([], 15)
    assert [COLUMNS[hit["row"] + (1 if hit["row"] == 0 else 2)] for hit in hits] == list(WIT.text)


def test_other_languages_are_handed_on():
    hits, _, _ = scan(table({"language": "de", "caption_alt_text_description": "usgs"}))
    assert [hit["language"] for hit in hits] == ["de"]


FIELDS = st.lists(st.sampled_from(["usgs", "a", '"', "\n", "\t", "\r\n", "\u00e9"]), max_size=4).map("".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.fixed_dictionaries({"caption_reference_description": FIELDS, "context_page_description": FIELDS}),
                max_size=6), st.sampled_from(["\n", "\r\n"]), st.integers(1, 400))  # fmt: skip
def test_every_row_a_csv_writer_writes_is_read_back(rows, end, block_bytes):
    texts = [row["caption_reference_description"] for row in rows]
    expected = [(n, text) for n, text in enumerate(texts) if MATCHER.keywords(text)]
    hits, bad, seen = scan(table(*rows, end=end), block_bytes=block_bytes)
    assert ([(hit["row"], hit["texts"][0]) for hit in hits], bad, seen) == (expected, [], len(rows))


def test_a_damaged_row_costs_no_other():
    good = {"caption_reference_description": "usgs", "context_page_description": "a\nb"}
    data = table(good, good) + b"en\tshort\n" + b'en\t"open\tusgs\n' + table(good).split(b"\n", 1)[1]
    hits, bad, seen = scan(data)
    assert ([hit["row"] for hit in hits], [row for row, _ in bad], seen) == ([0, 1, 4], [2, 3], 5)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty; its first line should name the columns"),
        (table(columns=[name for name in COLUMNS if name != "language"]), "its header lacks language; its columns are"),
        (table(columns=["language", "image_url"]), "lacks original_width, original_height, caption_reference_descript"),
        (table({"image_url": "a.jpg"}), "its column image_url, field 3 of 17, holds no urls, but for example 'a.jpg'"),
        (b"caption\thttp://a\n", "not a file of WIT, its header lacks image_url, .*; its columns are caption, http"),
        (b'{"language": "en"}\n', "not a file of WIT"), (b"PAR1\x15", "a Parquet file"),
        (gzip.compress(table({}), mtime=0)[:-1], "gzip cut off before its end; fetch it again"),
    ],
)  # fmt: skip
def test_files_that_will_not_do(data, says):
    with pytest.raises(MetadataError, match=f"metadata file: .*{says}"):
        scan(data)
