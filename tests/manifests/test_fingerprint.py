from __future__ import annotations

from manifests.fingerprint import Change, Parts, changes

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
