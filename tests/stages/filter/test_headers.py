import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.sources import SourceSpec, load_sources
from stages.filter.headers import HEAD_BYTES, Cutting, columns_of, header_line, missing
from stages.filter.line_blocks import cut_lines
from stages.filter.quoted import cutting
from stages.filter.rows import MetadataError

SOURCES = load_sources()
OWN = SourceSpec.model_validate(
    {"key": "mine", "name": "Mine", "format": "tsv", "columns": {"url": ["link"]}, "text": ["words"]}
)
TABS = Cutting(lambda body, _: [cut_lines(body, 9)], lambda line: line.split(b"\t"))
CC3M, CC12M = SOURCES["cc3m"], SOURCES["cc12m"]


def columns(data, spec, how=TABS):
    names, stream = columns_of(io.BytesIO(data), spec, how, "file")
    return names, stream.read(len(data) + 1) + stream.read(len(data) + 1)


@pytest.mark.parametrize("times", [1, 3, 200_000])
def test_a_file_of_the_other_column_order_is_refused_and_told(times):
    cc3m, cc12m = b"a dog on grass\thttp://a/1.jpg\n" * times, b"http://a/1.jpg\ta dog on grass\n" * times
    assert columns(cc3m, CC3M) == (("caption", "url"), cc3m)
    assert columns(cc12m, CC12M) == (("url", "caption"), cc12m)
    with pytest.raises(MetadataError) as refused:
        columns(cc3m, CC12M)
    assert str(refused.value) == (
        "file: not a file of source cc12m: its column url, field 1 of 2, holds no urls, but for example "
        "'a dog on grass'. Urls stand in field 2: its columns look like caption, url. Check that the file belongs to "
        "this source, or name its columns in the recipe."
    )
    with pytest.raises(MetadataError, match=r"source cc3m: its column url, field 2 of 2.*look like url, caption"):
        columns(cc12m, CC3M)


def test_an_example_is_short_and_ascii():
    with pytest.raises(MetadataError) as refused:
        columns("\u00e9\x1b".encode() * 500 + b"\tx\n", CC12M)
    shown = str(refused.value).split("for example '")[1].split("'")[0]
    assert len(shown) <= 60
    assert str(refused.value).isascii()
    assert "Urls stand" not in str(refused.value)


@given(st.lists(st.sampled_from(["http://a", "S3:b", "a dog", "", " ", "1a:b", "//a.org/b"]), min_size=1, max_size=9))
def test_half_of_the_urls_that_are_given_must_look_like_urls(urls):
    data = "".join(f"{url}\tdog\n" for url in urls).encode()
    given_urls = [url for url in urls if url.strip()]
    good = sum(url in ("http://a", "S3:b") for url in urls)
    if given_urls and 2 * good >= len(given_urls):
        assert columns(data, CC12M) == (("url", "caption"), data)
        assert columns(b"link\twords\n" + data, OWN) == (("link", "words"), data)
        return
    says = "holds no urls" if given_urls else f"holds nothing in its first {len(urls)} records"
    for spec, head in ((CC12M, b""), (OWN, b"link\twords\n")):
        with pytest.raises(MetadataError, match=says):
            columns(head + data, spec)


@pytest.mark.parametrize(("good", "bad"), [(1, 1), (3, 2), (1, 0), (10, 10)])
def test_bad_rows_up_to_half_are_for_the_ledger(good, bad):
    data = b"http://a\tdog\n" * good + b"torn\n" * bad
    assert columns(data, CC12M) == (("url", "caption"), data)
    with pytest.raises(MetadataError, match=f"only {good} of its first {2 * good + 1} lines are of source cc12m: 2, 1"):
        columns(b"http://a\tdog\n" * good + b"torn\n" * (good + 1), CC12M)


@pytest.mark.parametrize("key", ["cc3m", "cc12m"])
def test_wit_is_no_file_of_two_columns(key):
    row = b"\t".join([b"en", b"http://p", b"http://i.jpg", *[b"x"] * 14])
    data = (row + b"\n") * 11 + b"a line of\thttp://page\nhttp://page\ta line of\n"
    with pytest.raises(MetadataError, match=f"only 2 of its first 13 lines are of source {key}: 17, 2 fields found"):
        columns(data, SOURCES[key])


def test_columns_of_an_own_file_that_hold_no_urls():
    with pytest.raises(MetadataError, match=r"column link, field 2 of 3, holds no urls in most records \(1 of 3\), but "
                       "for example 'dog'. Urls stand in page, field 3. Check"):  # fmt: skip
        columns(b"words\tlink\tpage\n" + b"dog\tdog\thttp://a\n" * 2 + b"dog\thttp://a\thttp://b\n", OWN)
    for data in (b"", b"torn\n", b"\n" * 9):
        assert columns(b"words\tlink\n" + data, OWN) == (("words", "link"), data)


def test_a_quoted_record_that_the_head_cuts_counts_for_nothing():
    spec = SourceSpec.model_validate({**OWN.model_dump(), "format": "csv", "headers": [["link", "words"]]})
    row = b'http://a,"' + b"a line\n" * (HEAD_BYTES // 21) + b'"\n'
    assert columns(row * 4, spec, cutting(44))[0] == ("link", "words")


def test_what_is_unpacked_to_nothing():
    for spec in (CC12M, OWN):
        with pytest.raises(MetadataError, match=r"file: is empty; .*fetch it again"):
            columns(gzip.decompress(gzip.compress(b"")), spec)


def test_header_line_leaves_the_rest():
    names, stream = header_line(io.BytesIO(b"a\tb\r\nc\td\n"), TABS.split, "file")
    assert (names, stream.read(9)) == (("a", "b"), b"c\td\n")


def test_missing_columns_are_named_with_their_alternatives():
    assert missing(["URL", "width"], [("url",), ("w", "width"), ("h", "height"), ("text",)]) == ["h or height", "text"]
