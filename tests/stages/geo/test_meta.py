import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.templates import load_templates
from stages.geo.meta import MOST_LABELS, Known, meta_caption, relative_location, sure_tags, two_decimals
from stages.geo.zones import Moment

OURS = load_templates("ours-1")
EXTRA = {
    "img_width": 900, "img_height": 900, "cloud_cover": 0, "scan_direction": "Reverse", "target_azimuth_dbl": 31.2082,
    "off_nadir_angle_dbl": 21.8978, "bounding_boxes": [{"category": "false_detection"},
    {"category": "Parking_Lot_or_Garage", "box": [310, 310, 60, 60]}],
}  # fmt: skip
WHOLE = Known("Z\u00fcrich, Switzerland", "32T", "spring", Moment(2012, 4, 2, 10), 0.468, [], EXTRA)


def known(**changed):
    return Known(**{name: changed.get(name, getattr(WHOLE, name)) for name in Known.__slots__})


def written(source, facts, sample="a"):
    found = meta_caption(source, facts, OURS, 2023, sample)
    return found[0] if found else None


def test_every_fact_of_an_fmow_frame_is_told():
    for sample in "abcdefgh":
        text = written("fmow", WHOLE, sample)
        for fact in (
            "parking lot or garage", "Z\u00fcrich, Switzerland", "spring", "10 o'clock, April 2, 2012", "32T",
            "0.47", "31.21", "21.90", "reverse", "center block",
        ):  # fmt: skip
            assert fact in text.replace("Parking", "parking")
        assert "{" not in text
    assert len({written("fmow", WHOLE, str(number)) for number in range(40)}) == 4
    assert written("fmow", WHOLE) == written("fmow", WHOLE)


def test_an_unknown_country_is_not_spoken_of():
    text = written("fmow", known(place=None))
    assert "Switzerland" not in text
    assert "None" not in text
    assert "32T" in text


def test_a_sidecar_without_boxes():
    extra = {key: value for key, value in EXTRA.items() if key != "bounding_boxes"}
    assert written("fmow", known(extra=extra)) is None  # not even a class
    text = written("fmow", known(extra=extra, tags=[("airport", None)]))
    assert "airport" in text
    assert "block" not in text
    assert "Ground sample distance 0.47 m" in text


@settings(deadline=None)
@given(st.sets(st.sampled_from(["place", "utm", "season", "when", "gsd_m"])), st.sets(st.sampled_from(sorted(EXTRA))))
def test_whatever_is_missing_nothing_unknown_is_told(fields, keys):
    extra = {key: value for key, value in EXTRA.items() if key not in keys}
    text = written("fmow", known(**dict.fromkeys(fields), extra=extra, tags=[("dam", None)]))
    assert text
    assert "None" not in text
    assert "{" not in text


def test_bigearthnet():
    text = written("ben", known(tags=[("Non-irrigated arable land", None), ("Broad_leaved forest", None)]))
    assert "non-irrigated arable land, broad-leaved forest" in text.replace("Non-irr", "non-irr")
    assert all(fact in text for fact in ("32T", "spring", "10 o'clock, April 2, 2012"))
    assert written("ben", known(tags=[])) is None


HOSTILE = "runway\n\x1b[31m \u202edaor\u2066_" + "x y " * 1000


def is_clean(text):
    return text == " ".join(text.split()) and all(unicodedata.category(char)[0] != "C" for char in text)


def test_what_strangers_wrote_enters_as_one_short_clean_line():
    boxes = [{}, {"category": HOSTILE, "box": [310, 310, 60, 60]}]
    text = written("fmow", known(extra=EXTRA | {"bounding_boxes": boxes, "scan_direction": HOSTILE}))
    assert is_clean(text)
    assert "unway [31m daor" in text
    assert len(text) < 800
    for source in ("fmow", "ben", "cc3m"):
        text = written(source, known(extra={}, tags=[(HOSTILE, 0.95)] * 64))
        assert is_clean(text)
        assert "unway [31m daor" in text
        assert len(text) < 200 + 102 * {"ben": MOST_LABELS, "cc3m": 3}.get(source, 1)


def test_a_label_that_says_nothing_is_not_told():
    for nothing in ("\u202e\n", "", None, ["a"], {"a": 1}):
        boxes = [{}, {"category": nothing}]
        text = written("fmow", known(extra=EXTRA | {"bounding_boxes": boxes, "scan_direction": nothing}))
        assert text is None
        text = written("fmow", known(extra=EXTRA | {"bounding_boxes": boxes}, tags=[("\u200b", None), ("dam", None)]))
        assert "dam" in text.lower()
    labels = written("ben", known(tags=[("\n", None), ("Pastures", None), ("\u2066", None)]))
    assert ", ," not in labels
    assert "pastures" in labels.lower()
    assert written("ben", known(tags=[("\u202e", None)])) is None
    assert "coast" in written("cc3m", known(tags=[("\u202e", 0.99), ("coast", 0.4)])).lower()


def test_as_many_labels_as_bigearthnet_gives_are_told():
    text = written("ben", known(tags=[(f"label {number:02d}", None) for number in range(64)]))
    assert text.lower().count("label ") == MOST_LABELS == 12


def test_yfcc_redcaps_and_the_rest():
    assert "Z\u00fcrich, Switzerland" in written("yfcc14m", WHOLE)
    assert "April 2, 2012" in written("yfcc14m", WHOLE)
    assert "April" not in written("yfcc14m", known(when=None))
    assert written("yfcc14m", known(place=None, when=None)) is None
    assert "o'clock" not in written("redcaps", WHOLE)
    assert written("redcaps", known(when=None)) is None
    assert written("millionaid", WHOLE) is None
    assert written("laion2b", WHOLE) is None


def test_tags_of_cc3m():
    assert sure_tags([("a", 0.95), ("b", 0.5), ("c", 0.9), ("d", 0.91), ("e", 0.99)]) == ["a", "c", "d"]
    assert sure_tags([("a", 0.5), ("b", 0.7), ("c", 0.7)]) == ["b"]
    assert sure_tags([("a", None), ("b", float("nan"))]) == []
    assert sure_tags([]) == []
    assert written("cc3m", known(tags=[("coast", 0.4)])).lower().count("coast") == 1


@pytest.mark.parametrize(
    ("box", "where"),
    [
        ([110, 110, 50, 50], "center block"), ([0, 0, 10, 10], "top-left block"),
        ([90, 0, 100, 10], "top-center and top-left blocks"),
        ([0, 0, 300, 300], "top-left and top-center blocks"), ([250, 290, 500, 500], "bottom-right block"),
        ([100, 0, 100, 10], "top-center block"), ([400, 0, 10, 10], None), ([10, 10, 0, 5], None), ([1, 2, 3], None),
        (["a", 1, 2, 3], None), (None, None), ([-50, -50, 60, 60], "top-left block"),
    ],
)  # fmt: skip
def test_where_a_box_lies(box, where):
    assert relative_location(box, 300, 300) == where


def test_an_image_without_a_size():
    assert relative_location([0, 0, 1, 1], None, 300) is None
    assert relative_location([0, 0, 1, 1], 0, 300) is None


@settings(deadline=None)
@given(st.lists(st.one_of(st.floats(), st.integers(), st.text(max_size=3)), max_size=5), st.floats(), st.floats())
def test_any_box(box, width, height):
    found = relative_location(box, width, height)
    assert found is None or found.endswith(("block", "blocks"))


def test_numbers():
    assert [two_decimals(value) for value in (1.87378, "2", 0)] == ["1.87", "2.00", "0.00"]
    assert two_decimals(None) is two_decimals("x") is two_decimals(float("nan")) is None
    assert two_decimals(1e300) is two_decimals(-1e6) is None
