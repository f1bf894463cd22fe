import pytest

from manifests.lexicon import load_lexicon, make_lexicon


def test_the_lists_of_the_paper():
    lexicon = load_lexicon("rs5m-1")
    assert (lexicon.id, len(lexicon.stems), len(lexicon.names)) == ("rs5m-1", 27, 15)
    assert sum(stem.startswith("aerial ") for stem in lexicon.stems) == 7
    assert sum(stem.startswith("satellite ") for stem in lexicon.stems) == 8
    assert sum(stem.startswith("space") for stem in lexicon.stems) == 10
    assert {"remote sensing", "earth observ", "space-borne view", "space surveillance"} < set(lexicon.stems)
    assert lexicon.names[0] == "Google Earth"


def test_the_digest_is_pinned_and_sees_any_edit():
    lexicon = load_lexicon("rs5m-1")
    assert lexicon.digest == "d1d7a31d6e428e04ff6643f976ab3cc50ca52a1e0fb75cd3404e599fcc9fabbe"
    others = [
        make_lexicon("rs5m-1", lexicon.stems[1:], lexicon.names),
        make_lexicon("rs5m-1", lexicon.stems[::-1], lexicon.names),
        make_lexicon("rs5m-1", lexicon.stems + lexicon.names, ()),
    ]
    assert len({lexicon.digest, *(other.digest for other in others)}) == 4
    assert make_lexicon("renamed", lexicon.stems, lexicon.names).digest == lexicon.digest


def test_an_unknown_id_names_the_known_ones():
    with pytest.raises(ValueError, match=r"no lexicon 'rs5m'; known: rs5m-1"):
        load_lexicon("rs5m")


@pytest.mark.parametrize(
    ("stems", "words"),
    [
        ((), "no entries"),
        (("aerial  view",), "not ASCII words"),
        (("aerial view ",), "not ASCII words"),
        (("",), "not ASCII words"),
        (("vue a\xe9rienne",), "not ASCII words"),
        (("aerial (view)",), "not ASCII words"),
        (("MODIS", "modis"), "twice: modis"),
    ],
)
def test_a_lexicon_that_cannot_be_matched_is_refused(stems, words):
    with pytest.raises(ValueError, match=words):
        make_lexicon("x", stems, ())
