import io
import json
import tracemalloc
from itertools import chain, repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.filter.json_items import MAX_VALUE_CHARS, MissingListError, Refused, checked, items
from stages.filter.records import MAX_LEVELS, MAX_RECORD_BYTES
from stages.filter.rows import MetadataError

TEXT = st.text(st.characters(codec="utf-8") | st.sampled_from('"\\[]{}\0\ud800\udfff\u2028'))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))


def read(data, key="", **options):
    return list(items(io.BytesIO(data), key, "some.json", **options))


def nested(levels):
    return b"[" * levels + b"]" * levels


@settings(max_examples=200)
@given(st.lists(VALUES, max_size=5), st.integers(1, 9), st.booleans(), st.sampled_from([None, 1]))
def test_any_list_comes_back_whatever_the_pieces(entries, piece_bytes, ascii_only, indent):
    # Halves of pairs can be spelled in ASCII alone.
    told = json.dumps(entries, ensure_ascii=True if has_halves(entries) else ascii_only, indent=indent).encode()
    wanted = json.loads(told)
    assert read(told) == read(told, piece_bytes=piece_bytes) == wanted
    beside = b'\xef\xbb\xbf {"before": [[1], {}], "a": ' + told + b' , "after": {"a": [7]}}\n'
    assert read(beside, "a", piece_bytes=piece_bytes) == wanted


def has_halves(entries):
    try:
        json.dumps(entries, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


@settings(max_examples=200)
@given(st.lists(VALUES, max_size=4), st.data())
def test_a_file_that_is_cut_short_never_looks_whole(entries, data):
    told = json.dumps({"a": entries}).encode()
    cut = data.draw(st.integers(1, len(told) - 1))
    coming = items(io.BytesIO(told[:cut]), "a", "some.json", piece_bytes=data.draw(st.integers(1, 9)))
    got = []
    with pytest.raises(MetadataError, match=r"some\.json: .* Fetch the file again"):
        got.extend(coming)
    with pytest.raises(StopIteration):
        next(coming)


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 1 << 20])
def test_numbers_that_pieces_cut(piece_bytes):
    data = b"[1.5, 1e5,-2 ,1E+2,12345678901234567890123, 1e999, -0.0]"
    assert read(data, piece_bytes=piece_bytes) == [1.5, 1e5, -2, 100.0, 12345678901234567890123, float("inf"), 0.0]


def test_a_number_that_python_does_not_read_harms_nothing():
    assert read(b'[1, {"a": ' + b"9" * 5000 + b"}, 2]") == [1, {"a": float("inf")}, 2]


def test_what_is_no_unicode_comes_as_lone_surrogates_in_its_entry():
    data = b'["a\xffb", "\\ud83d", "\\ude00x", "\\ud83d\\ude00", "\xed\xa0\x80", "\xf0\x9f\x98\x80", "cut \xc3"]'
    for piece_bytes in (1, 1 << 20):
        assert read(data, piece_bytes=piece_bytes) == [
            "a\udcffb", "\ud83d", "\ude00x", "\U0001f600", "\udced\udca0\udc80", "\U0001f600", "cut \udcc3",
        ]  # fmt: skip


def test_control_characters_are_text():
    assert read(b'["a\0b\nc"]') == ["a\0b\nc"]


@pytest.mark.parametrize(
    ("data", "byte", "why"),
    [
        (b"[1, tru]", 4, "Expecting value"),
        (b"[1,]", 3, "Expecting value"),
        (b"[1 2]", 3, "expected , or ]"),
        (b"[1] [2]", 4, "more after the end"),
        (b'["\xc3\xa9\xff", x]', 8, "Expecting value"),
        (b'[{"a": 1}, {"a" 2}]', 16, "delimiter"),
        (b"hello", None, "neither a list nor an object"),
        (b"", None, "the file is empty"),
        (b" \n", None, "the file is empty"),
        (b'[{"a": 1', 8, "ends there"),
        (b'["abc', 1, "Unterminated string"),
        (nested(100_000)[:-100_000], 1, None),
    ],
)
def test_what_is_no_json_fails_with_the_byte(data, byte, why):
    for piece_bytes in (1 << 20, 5) if len(data) < 100 else (1 << 20,):
        with pytest.raises(MetadataError, match=r"^some\.json: ") as error:
            read(data, piece_bytes=piece_bytes)
        assert (why or "") in str(error.value)
        assert byte is None or f"at byte {byte}: " in str(error.value)


def test_the_byte_is_counted_over_pieces():
    data = "[" + '"\u00e9", ' * 100 + "x]"
    with pytest.raises(MetadataError, match=rf"at byte {1 + 6 * 100}: "):
        read(data.encode(), piece_bytes=7)


@pytest.mark.parametrize(
    ("data", "key", "words"),
    [
        (b'{"info": {}, "images": [1], "\\ud800\\n": 2}', "annotations", r"keys info, images, \\ud800\\n\."),
        (b'{"annotations": null}', "annotations", r"annotations \(no list\)"),
        (b"{}", "annotations", "the keys none"),
        (b"[]", "annotations", "the file is a list"),
        (b"{}", "", "the file is an object"),
    ],
)
def test_a_file_without_the_list_says_what_it_has(data, key, words):
    with pytest.raises(MissingListError, match=words):
        read(data, key)


def test_an_empty_list_is_there():
    assert read(b'{"annotations": []}', "annotations") == read(b" [ ] ") == []


def test_what_is_nested_too_deeply_is_refused_and_the_next_is_read():
    why = f"nested deeper than {MAX_LEVELS} levels"
    texts = b'{"a]}\\"": [{"b": "[["}, ' + nested(20_000) + b"]}"
    data = b"[" + b", ".join([nested(MAX_LEVELS), nested(MAX_LEVELS + 1), texts, nested(100_000), b"7"]) + b"]"
    first, *rest = read(data)
    assert first == json.loads(nested(MAX_LEVELS))
    assert rest == [Refused(why), Refused(why), Refused(why), 7]
    assert read(data, piece_bytes=4096)[1:] == rest


def test_an_entry_that_is_too_long_is_refused_and_a_giant_one_ends_the_reading():
    fits, long = "x" * (MAX_RECORD_BYTES - 2), "y" * (MAX_RECORD_BYTES - 1)
    data = json.dumps([fits, long, [long], 1]).encode()
    refused = Refused(f"more than {MAX_RECORD_BYTES} characters")
    assert read(data) == [fits, refused, refused, 1]
    with pytest.raises(MetadataError, match=f"a value of more than {MAX_VALUE_CHARS} characters"):
        read(b'[1, "' + b"x" * (MAX_VALUE_CHARS + (2 << 20)) + b'"]')


def test_memory_does_not_grow_with_the_file():
    class Pieces(io.RawIOBase):
        def __init__(self, pieces):
            self.pieces = pieces

        def read(self, size):
            del size
            return next(self.pieces, b"")

    entries = b', {"key": "some text", "other": [1, 2, 3]}' * 1000
    file = Pieces(chain([b'{"a": [1'], repeat(entries, 50), [b"]}"]))
    tracemalloc.start()
    count = sum(1 for _ in items(file, "a", "some.json"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 1 + 50 * 1000
    assert peak < 1 << 20


def test_the_first_keys_decide_whether_a_file_is_read():
    def check(keys):
        if "url" not in keys:
            raise MetadataError("no url in " + ", ".join(keys))

    keys, entries = checked(iter([None, {"a": 1}, {"url": 2}, {"b": 3}]), check)
    assert (keys, list(entries)) == (("a", "url"), [None, {"a": 1}, {"url": 2}, {"b": 3}])
    assert (checked(iter([]), check)[0], list(checked(iter([None]), check)[1])) == ((), [None])
    with pytest.raises(MetadataError, match=r"no url in a, '\\ud800'"):
        checked(iter([{"a": 1, "\ud800": 1}] * 100), check)


@pytest.mark.parametrize("piece_bytes", [1 << 12, 1 << 20])
def test_a_broken_value_in_a_large_file_is_told_at_once(piece_bytes):
    class Counted(io.BytesIO):
        taken = 0

        def read(self, size=-1):
            data = super().read(size)
            self.taken += len(data)
            return data

    good = b'{"a": "some text", "b": [1, 2]}, '
    start = b"[" + good * 1000
    file = Counted(start + b'{"a": "x" "b": 1}, ' + good * 1_000_000 + b"1]")
    with pytest.raises(MetadataError, match=rf"at byte {len(start) + 10}: Expecting ',' delimiter\. Fetch"):
        list(items(file, "", "some.json", piece_bytes=piece_bytes))
    assert file.taken <= len(start) + 2 * piece_bytes


@given(
    st.integers(0, 40),
    st.sampled_from(['"\\u12g4"', '"\\x"', "nul", "-", "-Infinitx", "1.e", "{1: 2}", '{"a" 1}', "[1 2]"]),
)
def test_a_broken_value_is_told_the_same_whatever_the_pieces(blanks, broken):
    data = ("[1, " + broken + " " * blanks + ", 2]").encode()
    said = set()
    for piece_bytes in (1, 3, 7, 1 << 20):
        with pytest.raises(MetadataError) as error:
            read(data, piece_bytes=piece_bytes)
        said.add(str(error.value))
    assert len(said) == 1
