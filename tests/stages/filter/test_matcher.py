import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.lexicon import load_lexicon, make_lexicon
from stages.filter.matcher import Matcher

RS5M = load_lexicon("rs5m-1")
AWKWARD = make_lexicon("awkward", ("a-a", "ks view", "k"), ("a b", "Sk", "i"))  # entries that overlap themselves

WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
HYPHENS = "-\u2010\u2011"
# dotted and dotless i, fullwidth, soft hyphen, sharp s, long s, Kelvin, combining accents, a letter of Unicode 5.1
TRAPS = "\u0130\u0131\uff21\uff49\uff53\xad\xdf\u017f\u212a\u0301\u0327\u1e9e"
TRAPS += "\u200d\ufeff\u2014_.,'\"0\u0660\u4e2d\x00\U0001f600\x1c"


def folded(char):
    if "A" <= char <= "Z":
        return chr(ord(char) + 32)
    return {"\u017f": "s", "\u212a": "k"}.get(char, char)


def ends(entry, text, start):
    """All positions where the entry can end when it begins at start: the definition, a character at a time."""
    reach = {start}
    for wanted in entry.lower():
        if wanted == " ":
            step, frontier = set(), reach
            while frontier:
                frontier = {at + 1 for at in frontier if at < len(text) and text[at] in WHITE_SPACE} - step
                step |= frontier
        elif wanted == "-":
            step = {at + 1 for at in reach if at < len(text) and text[at] in HYPHENS}
        else:
            step = {at + 1 for at in reach if at < len(text) and folded(text[at]) == wanted}
        reach = step
    return reach


def in_word(char):
    return char == "_" or unicodedata.ucd_3_2_0.category(char)[0] in {"L", "M", "N"}


def oracle(lexicon, mode, text):
    found = []
    for entry in lexicon.stems + lexicon.names:
        for start in range(len(text)):
            if mode == "stem" and start and in_word(text[start - 1]):
                continue
            closed = mode == "stem" and entry in lexicon.names
            if any(not closed or end == len(text) or not in_word(text[end]) for end in ends(entry, text, start)):
                found.append(entry)
                break
    return tuple(found)


def stays(matcher, column):
    """Which texts stay, as a scan finds them: the engine's mask first, the definition after it."""
    mask = matcher.possible(column)
    assert mask.dtype == bool
    return [may and bool(matcher.keywords(text)) for may, text in zip(mask.tolist(), column.to_pylist(), strict=True)]


def near_misses(lexicon):
    """Texts made of entries, their halves, and characters that are hard to judge, next to each other."""
    entries = lexicon.stems + lexicon.names
    parts = [*entries, *(entry.upper() for entry in entries), *(half for entry in entries for half in entry.split(" "))]
    odd = st.sampled_from([*WHITE_SPACE, *HYPHENS, *TRAPS, *"aiskIKSx"])
    return st.lists(st.one_of(st.sampled_from(parts), odd, odd, st.characters(codec="utf-8")), max_size=8).map("".join)


@pytest.mark.parametrize("lexicon", [RS5M, AWKWARD], ids=lambda lexicon: lexicon.id)
@pytest.mark.parametrize("mode", ["stem", "substring"])
def test_mask_and_keywords_agree_with_the_definition_on_any_text(lexicon, mode):
    matcher = Matcher(lexicon, mode)

    @given(st.lists(st.one_of(st.text(max_size=20), near_misses(lexicon), st.none()), max_size=5))
    def check(texts):
        expected = [() if text is None else oracle(lexicon, mode, text) for text in texts]
        assert [() if text is None else matcher.keywords(text) for text in texts] == expected
        assert stays(matcher, pa.array(texts, pa.string())) == [bool(found) for found in expected]

    check()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Aerial view of a city", ("aerial view",)),
        ("AERIAL  IMAGERY", ("aerial imag",)),
        ("aerial\u00a0\nphotograph", ("aerial photo",)),
        ("aerial-view", ()),
        ("anaerial view", ()),
        ("\u00e9aerial view", ()),
        ("e\u0301aerial view", ()),
        ("\u4e2daerial view", ()),
        ("_aerial view", ()),
        ("2aerial view", ()),
        ("(aerial viewpoint", ("aerial view",)),
        ("\U0001f6f0aerial view", ("aerial view",)),
        ("aerospace photo", ()),
        ("space\u2010borne image", ("space-borne imag",)),
        ("Sentinel\u20112 MODIS", ("Sentinel-2", "MODIS")),
        ("Sentinel-10", ()),
        ("Sentinel 1", ()),
        ("modish", ()),
        ("MODI\u017f", ("MODIS",)),
        ("MODIS\u0301", ()),
        ("MODIS_2", ()),
        ("the modis.", ("MODIS",)),
        ("google  earth, landsat", ("Google Earth", "Landsat")),
        ("a\u00aderial view", ()),
        ("\uff41erial view", ()),
        ("aer\u0130al view", ()),
        ("aer\u0131al view", ()),
        ("LAND\u017fAT", ("Landsat",)),
        ("remote\tsensing", ("remote sensing",)),
        ("AERIAL SLOW MOTION: view of a woman swimming", ()),
        ("", ()),
    ],
)
def test_what_stem_mode_means(text, expected):
    matcher = Matcher(RS5M, "stem")
    assert matcher.keywords(text) == expected
    assert stays(matcher, pa.array([text])) == [bool(expected)]


def test_substring_mode_has_no_boundaries():
    matcher = Matcher(RS5M, "substring")
    assert matcher.keywords("anaerial viewer, modish") == ("aerial view", "MODIS")
    assert matcher.keywords("aerial-view") == ()


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_arrays_of_any_shape(kind):
    matcher = Matcher(RS5M, "stem")
    texts = ["aerial view", None, "modish", "nothing", "usgs"]
    assert stays(matcher, pa.array(texts, kind)) == [True, False, False, False, True]
    chunked = pa.chunked_array([pa.array(texts[:2], kind), pa.array([], kind), pa.array(texts, kind)[2:]])
    assert stays(matcher, chunked) == [True, False, False, False, True]
    assert matcher.possible(chunked).tolist() == [True, False, True, False, True]
    assert stays(matcher, pa.array([], kind)) == []


def test_a_matcher_that_takes_all_takes_what_has_no_keyword():
    matcher = Matcher(RS5M, "stem", takes_all=True)
    assert matcher.possible(pa.array(["a dog", None])).tolist() == [True, True]
    assert matcher.accepts(())
    assert not Matcher(RS5M, "stem").accepts(())


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="'stem' or 'substring'"):
        Matcher(RS5M, "word")
