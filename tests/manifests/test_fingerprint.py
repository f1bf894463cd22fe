from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from manifests.fingerprint import Change, Frame, Parts, changes

BASE = Parts(inputs=[("download.fetch", "web-0001", "d")], recipe={"dedup.radius": 4}, code=1, profile={"pillow": "11"})


def test_every_part_moves_the_fingerprint() -> None:
    others = [
        BASE.model_copy(update={"inputs": [("download.fetch", "web-0001", "e")]}),
        BASE.model_copy(update={"recipe": {"dedup.radius": 6}}),
        BASE.model_copy(update={"code": 2}),
        BASE.model_copy(update={"models": {"encoder": "r1"}}),
        BASE.model_copy(update={"pins": {"lexicon": "x"}}),
        BASE.model_copy(update={"profile": {"pillow": "12"}}),
    ]
    assert len({BASE.fingerprint, *(other.fingerprint for other in others)}) == 7


def test_the_row_fingerprint_leaves_the_inputs_out() -> None:
    other = BASE.model_copy(update={"inputs": []})
    assert other.row_fingerprint(recording=False) == BASE.row_fingerprint(recording=False)
    assert BASE.model_copy(update={"code": 2}).row_fingerprint(recording=False) != BASE.row_fingerprint(recording=False)


def test_a_recording_does_not_depend_on_settings_or_code() -> None:
    other = BASE.model_copy(update={"recipe": {"download.max_bytes": 1}, "code": 9})
    assert other.row_fingerprint(recording=True) == BASE.row_fingerprint(recording=True)


def test_changes_name_the_part_and_the_key() -> None:
    now = BASE.model_copy(update={"recipe": {"dedup.radius": 6}, "code": 2, "inputs": []})
    assert list(changes(BASE, now)) == [
        Change("inputs", "download.fetch web-0001", "d", None),
        Change("recipe", "dedup.radius", 4, 6),
        Change("code", "VERSION", 1, 2),
    ]
    assert list(changes(BASE, BASE)) == []


_TEXT = st.text(max_size=8)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=5,
)
_MAPPINGS = st.dictionaries(_TEXT, _TEXT, max_size=3)


@given(
    st.lists(st.tuples(_TEXT, _TEXT, _TEXT), max_size=4),
    st.dictionaries(_TEXT, _VALUES, max_size=4), st.integers(), _MAPPINGS, _MAPPINGS, _MAPPINGS,
)  # fmt: skip
def test_a_frame_gives_the_fingerprint_of_the_whole(inputs, recipe, code, models, pins, profile) -> None:
    parts = Parts(inputs=sorted(inputs), recipe=recipe, code=code, models=models, pins=pins, profile=profile)
    frame = Frame(parts.model_copy(update={"inputs": [("other", "inputs", "entirely")]}))
    assert frame.fingerprint(sorted(inputs)) == parts.fingerprint
    assert frame.parts(sorted(inputs)) == parts


def test_fingerprints_of_existing_builds_do_not_change() -> None:
    """Written down from the first release: a build made then is still done."""
    parts = Parts(
        inputs=[("download.fetch", "web-0001", "0" * 32), ("filter.pool", "web-0001", "f" * 32)],
        recipe={
            "dedup.hash": "exact",
            "dedup.max_pixels": 100_000_000,
            "\u00e4": [1, 2.5, None, True, {"b": "\u20ac"}],
        },
        code=4,
        models={"mini": "aa"},
        pins={"lexicon rs5m-1": "bb"},
        profile={"pillow": "11.0.0"},
    )
    assert parts.fingerprint == "b2ff62fa1182d878648b99b97723d938"
    assert parts.row_fingerprint(recording=False) == "1ea28fa170d2a6c5f33fda2d06e5e541"
