import contextlib
import errno
import hashlib
import resource
import tarfile
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages import tars
from stages.download.answers import Answer
from stages.download.intake import Intake

MIB = 1 << 20


def digest(body):
    return hashlib.sha256(body).hexdigest()


def took(url, body, media_type="jpeg"):
    return Answer(url, None, body, media_type, 200, content_type="image/x")


def taken(tar, *answers, **options):
    with Intake(tar, **options) as found:
        for answer in answers:
            found.take(answer)
    return found


def members(tar):
    with tarfile.open(tar) as file:
        return [(info.name, file.extractfile(info).read()) for info in file]


def test_a_body_is_kept_once_in_the_order_of_arrival(tmp_path):
    tar = tmp_path / "i.tar"
    found = taken(tar, took("u1", b"two"), took("u2", b"one", "png"), took("u3", b"two"), took("u4", b"", "empty"))
    wanted = [(f"{digest(b'two')}.jpg", b"two"), (f"{digest(b'one')}.png", b"one"), (f"{digest(b'')}.bin", b"")]
    assert members(tar) == wanted
    assert found.sha256 == digest(tar.read_bytes())
    assert [record.row["sha256"] for record in found.records.values()] == list(
        map(digest, (b"two", b"one", b"two", b""))
    )
    assert [record.row["length"] for record in found.records.values()] == [3, 3, 3, 0]
    raw = tar.read_bytes()
    for record in found.records.values():
        row = record.row
        assert record.reason is None
        assert digest(raw[row["offset"] :][: row["length"]]) == row["sha256"]
        assert found.offsets[row["sha256"]] == row["offset"]


def test_the_first_extension_of_a_body_counts(tmp_path):
    found = taken(tmp_path / "i.tar", took("a", b"x", "gif"), took("b", b"x", "png"))
    assert [name.rsplit(".")[-1] for name, _ in members(tmp_path / "i.tar")] == ["gif"]
    assert [found.records[url].row["media_type"] for url in "ab"] == ["gif", "png"]


def test_a_refusal_is_recorded_with_its_evidence(tmp_path):
    answer = Answer("u", "download.too_large", http_status=200, value=9.0, cut=8.0, detail="too much")
    record = taken(tmp_path / "i.tar", answer).records["u"]
    evidence = {"status": 200, "value": 9.0, "cut": 8.0, "detail": "too much", "sha256": None}
    assert (record.reason, record.row) == ("download.too_large", evidence)


def test_an_excluded_body_is_not_kept(tmp_path):
    found = taken(tmp_path / "i.tar", took("u", b"bad"), took("v", b"good"), excluded=frozenset({digest(b"bad")}))
    assert (found.records["u"].reason, found.records["u"].row["sha256"]) == ("download.excluded", digest(b"bad"))
    assert list(found.offsets) == [digest(b"good")]
    assert b"bad" not in (tmp_path / "i.tar").read_bytes()


def test_rows_say_what_their_bodies_were_rendered_by(tmp_path):
    assert taken(tmp_path / "i.tar", took("u", b"x"), rendered="by me").records["u"].row["rendered"] == "by me"


def test_nothing_taken_nothing_kept(tmp_path):
    found = taken(tmp_path / "i.tar")
    assert (found.records, found.offsets) == ({}, {})


@settings(deadline=None, max_examples=50)
@given(st.lists(st.binary(max_size=5) | st.integers(0, 3 * MIB).map(bytes), max_size=12))
def test_any_bodies_are_where_their_rows_say(tmp_path_factory, bodies):
    tar = tmp_path_factory.mktemp("intake") / "i.tar"
    found = taken(tar, *(took(f"u{number}", body) for number, body in enumerate(bodies)))
    raw = tar.read_bytes()
    rows = [found.records[f"u{number}"].row for number in range(len(bodies))]
    assert [raw[row["offset"] :][: row["length"]] for row in rows] == bodies
    assert members(tar) == [(f"{digest(body)}.jpg", body) for body in dict.fromkeys(bodies)]
    assert found.sha256 == digest(raw)


@contextlib.contextmanager
def files_end_at(size_bytes):
    """No file of this process grows over a size: what a full disk does, to a real file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("bodies", [3, 100])
def test_a_disk_that_fills_up_is_an_error_and_no_wait(tmp_path, bodies):
    with files_end_at(MIB), pytest.raises(OSError, match="large"):
        taken(tmp_path / "i.tar", *(took(f"u{number}", number.to_bytes(1) * MIB) for number in range(bodies)))


def test_what_ends_the_asking_is_not_hidden_by_the_disk(tmp_path):
    def give_up():
        with Intake(tmp_path / "i.tar") as found:
            found.take(took("u", bytes(2 * MIB)))
            raise KeyboardInterrupt

    before = threading.enumerate()
    with files_end_at(MIB), pytest.raises(KeyboardInterrupt):
        give_up()
    assert threading.enumerate() == before


def test_a_disk_that_failed_once_has_failed(tmp_path, monkeypatch):
    """Whoever catches the first error, as a TimeoutError say, is not left with a tar that lacks a block."""
    write, failures = tars._Hashed._write, iter([OSError(errno.ETIMEDOUT, "the disk does not answer")])

    def failing(blocks, block):
        for error in failures:
            raise error
        write(blocks, block)

    def take_in_spite_of_it():
        with Intake(tmp_path / "i.tar") as found:
            for number in range(60):
                with contextlib.suppress(TimeoutError):
                    found.take(took(f"u{number}", number.to_bytes(1) * MIB))

    monkeypatch.setattr(tars._Hashed, "_write", failing)
    with pytest.raises(TimeoutError):
        take_in_spite_of_it()


def test_whoever_hands_over_waits_for_a_slow_disk(tmp_path, monkeypatch):
    disk_works = threading.Event()

    write = tars._Hashed._write

    def waiting_for_the_disk(blocks, block):
        assert disk_works.wait(30)
        write(blocks, block)

    monkeypatch.setattr(tars._Hashed, "_write", waiting_for_the_disk)
    given = []

    def give():
        with Intake(tmp_path / "i.tar") as found:
            for number in range(100):
                found.take(took(f"u{number}", number.to_bytes(1) * MIB))
                given.append(number)

    thread = threading.Thread(target=give)
    thread.start()
    thread.join(0.5)
    waiting = len(given)
    disk_works.set()
    thread.join(30)
    assert 20 < waiting < 50  # 32 MiB
    assert len(given) == 100
    assert len(members(tmp_path / "i.tar")) == 100
