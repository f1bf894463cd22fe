import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.dedup.guarded_frames import (
    FrameError,
    Request,
    Status,
    pack_found,
    reply,
    take_reply,
    unpack_found,
)

HASH = st.integers(0, 2**64 - 1)
DEGREES = st.none() | st.floats(-180, 180)
HASHES = st.lists(HASH, min_size=8, max_size=8)
SEEN = st.fixed_dictionaries({
    "width": st.integers(1, 2**31), "height": st.integers(1, 2**31), "mode": st.sampled_from(["RGB", "I;16"]),
    "frames": st.integers(1, 1000), "exif_orientation": st.integers(0, 8), "exif_lon": DEGREES, "exif_lat": DEGREES,
    "hash_kind": st.just("phash64-exact"), "phash_d4": HASHES, "texture": st.floats(0, 127.5, width=32),
    "thumbnail": st.binary(min_size=256, max_size=256),
})  # fmt: skip
ONE = {
    "width": 4, "height": 3, "mode": "RGB", "frames": 1, "exif_orientation": 0, "exif_lon": None, "exif_lat": None,
    "hash_kind": "phash64-exact", "phash": 0, "phash_d4": [0] * 8, "texture": 1.5,
}  # fmt: skip


@given(SEEN)
def test_what_is_found_arrives_as_it_was(found):
    found |= {"phash": found["phash_d4"][0], "thumbnail": np.frombuffer(found["thumbnail"], np.uint8)}
    status, payload = pack_found(found)
    back = unpack_found(status, payload)
    assert back.pop("thumbnail").tolist() == found.pop("thumbnail").tolist()
    assert back == found


@given(st.text(max_size=50), st.text(max_size=200))
def test_a_refusal_arrives_as_it_was(reason, detail):
    found = {"reason": reason, "detail": detail}
    assert unpack_found(*pack_found(found)) == found


@given(st.lists(st.tuples(st.sampled_from(list(Status)), st.binary(max_size=40)), max_size=5), st.integers(1, 7))
def test_replies_arrive_whole_however_they_are_cut(replies, step):
    raw, incoming, got = b"".join(reply(*one) for one in replies), bytearray(), []
    for start in range(0, len(raw), step):
        incoming += raw[start : start + step]
        while one := take_reply(incoming):
            got.append(one)
    assert (got, incoming) == (replies, b"")


@given(st.binary(max_size=400))
def test_any_bytes_are_a_reply_or_refused(raw):
    incoming = bytearray(raw)
    try:
        taken = take_reply(incoming)
    except FrameError:
        return
    assert taken is None or reply(*taken) + incoming == raw


@given(st.sampled_from([Status.SEEN, Status.REFUSED]), st.binary(max_size=600))
def test_any_bytes_are_a_finding_or_refused(status, raw):
    with pytest.raises(FrameError):
        unpack_found(status, raw)


@pytest.mark.parametrize(
    "changed",
    [
        {"width": "4"}, {"width": True}, {"texture": 1}, {"mode": None}, {"phash": 1}, {"phash_d4": [0] * 7},
        {"phash_d4": [0] * 7 + [2**64]}, {"phash_d4": [0] * 7 + [-1]}, {"phash_d4": [0] * 7 + ["0"]},
        {"more": 1}, {"exif_lon": "2"},
    ],
    ids=str,
)  # fmt: skip
def test_findings_of_another_form_are_refused(changed):
    assert unpack_found(Status.SEEN, bytes(256) + json.dumps(ONE).encode())["phash"] == 0
    with pytest.raises(FrameError):
        unpack_found(Status.SEEN, bytes(256) + json.dumps(ONE | changed).encode())
    with pytest.raises(FrameError):
        unpack_found(Status.REFUSED, json.dumps(ONE | changed).encode())


def test_nesting_without_end_is_refused():
    with pytest.raises(FrameError):
        unpack_found(Status.REFUSED, b"[" * 60_000)


@given(st.sampled_from(["exact", "fast"]), st.booleans(), st.floats(0, 1e6), HASH, HASH, HASH)
def test_a_request_arrives_as_it_was(kind, prompt, cpu_s, memory, pixels, body):
    request = Request(kind, prompt, cpu_s, memory, pixels, body)
    assert len(request.packed()) == Request.SIZE
    assert Request.unpacked(request.packed()) == request
