import contextlib
import fcntl
import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from stages.dedup.guarded import Guarded, Limits, inspect_guarded
from stages.dedup.guarded_process import GuardError
from stages.dedup.one_image import inspected

ROOT = Path(__file__).parents[3]
AILING = [sys.executable, str(Path(__file__).with_name("ailing_child.py"))]
MAX_PIXELS = 1_000_000
QUICK = Limits(cpu_s=0.3, base_bytes=128 << 20, pixel_bytes=24)


def picture(seed=0, width=60, height=45, mode="RGB"):
    coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encode(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def exif():
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = 6
    tags[ExifTags.IFD.GPSInfo] = {1: "N", 2: (41.0, 30.0, 0.0), 3: "W", 4: (2.0, 15.0, 36.0)}
    return tags


JPEG = encode(picture(), "JPEG")
PNG = encode(picture(1), "PNG")
TURNED = encode(picture(2), "JPEG", exif=exif())
FRAMES = {"save_all": True, "append_images": [picture(7), picture(8)]}
BODIES = {
    **{kind: encode(picture(3, 400, 300), kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")},
    "cmyk": encode(picture(mode="CMYK"), "JPEG"),
    "grey": encode(picture(mode="L"), "JPEG"),
    "16 bit": encode(Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60) * 27), "PNG"),
    "float": encode(picture(mode="F"), "TIFF"),
    "palette": encode(picture(mode="P"), "PNG", transparency=bytes(range(256))),
    "alpha": encode(picture(mode="RGBA"), "PNG"),
    "bilevel": encode(picture(mode="1"), "TIFF", compression="group4"),
    "progressive": encode(picture(), "JPEG", progressive=True),
    **{f"animated {kind}": encode(picture(), kind, **FRAMES) for kind in ("GIF", "WEBP", "PNG", "TIFF")},
    "turned": TURNED,
    "broken exif": TURNED.replace(b"Exif\0\0II", b"Exif\0\0IX").replace(b"Exif\0\0MM", b"Exif\0\0MX"),
    "other broken exif": TURNED[:40] + bytes(30) + TURNED[70:],
    "truncated": JPEG[: len(JPEG) // 2],
    "truncated png": PNG[: len(PNG) // 2],
    "empty": b"",
    "zeros": bytes(5000),
    "html": b"<html><body>404</body></html>",
    "too many pixels": encode(picture(0, 1100, 1000), "PNG"),
    "bomb": encode(Image.new("1", (16000, 16000)), "PNG"),
    "larger bomb": b"BM" + bytes(12) + b"\x28\0\0\0" + b"\xff\xff\xff\x7f" * 2 + b"\1\0\x18\0" + bytes(24),
}


def plain(found):
    return {name: value.tolist() if name == "thumbnail" else value for name, value in found.items()}


def asked(guarded, *bodies, kind="exact", max_pixels=MAX_PIXELS):
    """What is found of bodies, after a look at their order."""
    answers = list(guarded.inspect(enumerate(bodies), kind, max_pixels))
    assert [tag for tag, _ in answers] == list(range(len(bodies)))
    return [plain(found) for _, found in answers]


def alone(body, kind="exact", max_pixels=MAX_PIXELS):
    return plain(inspected(body, kind, max_pixels))


def ill(what, *said):
    return ":".join(("ill", what, *map(str, said))).encode()


def well(what):
    return f"well:{what}".encode()


def blamed(detail):
    return {"reason": "dedup.undecodable", "detail": detail}


@pytest.fixture
def ailing():
    with Guarded(QUICK, AILING) as guarded:
        yield guarded


@pytest.fixture(scope="module")
def sound():
    with Guarded() as guarded:
        yield guarded


@pytest.mark.parametrize("kind", ["exact", "fast"])
def test_it_finds_exactly_what_is_found_without_it(sound, kind):
    found = dict(sound.inspect(BODIES.items(), kind, MAX_PIXELS))
    assert list(found) == list(BODIES)
    assert {name: plain(one) for name, one in found.items()} == {n: alone(b, kind) for n, b in BODIES.items()}
    assert found["JPEG"]["thumbnail"].dtype == np.uint8
    assert {type(value) for value in found["JPEG"].values()} == {int, str, float, list, np.ndarray, type(None)}
    assert sum("reason" in one for one in found.values()) == 8


def test_each_call_has_its_own_settings(sound):
    body = BODIES["JPEG"]
    for kind, limit in (("exact", MAX_PIXELS), ("fast", MAX_PIXELS), ("exact", 1000)):
        assert asked(sound, body, kind=kind, max_pixels=limit) == [alone(body, kind, limit)]


def test_whatever_a_codec_does_costs_one_image(ailing):
    limit_mib = QUICK.memory_bytes(MAX_PIXELS) >> 20
    ills = {
        ill("signal", "SIGSEGV"): "the codec crashed (SIGSEGV)",
        ill("signal", "SIGABRT"): "the codec crashed (SIGABRT)",
        ill("signal", "SIGBUS"): "the codec crashed (SIGBUS)",
        ill("burn"): "decoding took more than 0.3 s of CPU time",
        ill("hoard"): f"decoding needed more than {limit_mib} MiB",
        ill("exit", 0): "the codec ended its process (exit code 0)",
        ill("exit", 3): "the codec ended its process (exit code 3)",
        ill("nonsense"): "the codec damaged its process",
        ill("babble"): "the codec damaged its process",
    }
    bodies = [body for n, one in enumerate(ills) for body in (well(n), one)]
    expected = [blamed(detail) for n, one in enumerate(ills.values()) for detail in (well(n).decode(), one)]
    assert asked(ailing, JPEG, *bodies, PNG) == [alone(JPEG), *expected, alone(PNG)]


def test_what_codecs_print_goes_nowhere(ailing, capfd):
    found = asked(ailing, ill("noise"), well("done"))
    assert found[1] == blamed("well:done")
    assert capfd.readouterr() == ("", "")


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 99), max_size=100), st.sets(st.integers(0, 99), max_size=3))
def test_crashes_anywhere_lose_nothing_and_keep_the_order(ailing, sound_ones, crashes):
    bodies = [well(n) for n in sound_ones]
    for place in sorted(crashes):
        bodies.insert(place, ill("exit", place))
    expected = [body.decode() for body in bodies]
    said = [f"the codec ended its process (exit code {one[9:]})" if one[:3] == "ill" else one for one in expected]
    assert asked(ailing, *bodies) == [blamed(detail) for detail in said]


def test_damage_that_an_image_left_behind_is_not_blamed_on_the_next(ailing):
    poison, *found = asked(ailing, ill("poison"), well(1), well(2))
    assert poison["detail"].startswith("pid")
    assert found == [blamed("well:1"), blamed("well:2")]


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_one_killed_from_outside_is_tried_again(ailing, tmp_path, name):
    found = asked(ailing, well(1), ill("signal once", name, tmp_path / "done"), well(2))
    assert found[1]["detail"].startswith("pid")
    assert [found[0], found[2]] == [blamed("well:1"), blamed("well:2")]


def test_nothing_is_said_of_an_image_whose_process_is_killed_each_time(ailing):
    with pytest.raises(GuardError, match=r"killed from outside \(SIGKILL\) twice at one image of 18 bytes: .*memory"):
        asked(ailing, well(1), ill("signal", "SIGKILL"), well(2))
    assert asked(ailing, well(3)) == [blamed("well:3")]


def test_a_fault_of_our_own_is_not_blamed_on_the_image(ailing):
    with pytest.raises(GuardError, match="looking at an image failed: KeyError: 'a fault of our own'"):
        asked(ailing, well(1), ill("raise"))


def test_a_machine_without_memory_is_not_blamed_on_the_image():
    under = ["sh", "-c", f"ulimit -v 500000; exec '{AILING[0]}' '{AILING[1]}'"]
    limits = Limits(base_bytes=2 << 30)
    with Guarded(limits, under) as guarded, pytest.raises(MemoryError, match="use fewer workers"):
        asked(guarded, well(1), ill("hoard"))


def test_a_real_picture_over_the_real_bounds():
    large, limit = encode(Image.new("RGB", (4000, 3000), "navy"), "PNG", compress_level=1), 12_000_000
    with Guarded(Limits(base_bytes=2 << 20, pixel_bytes=0)) as guarded:
        found = asked(guarded, JPEG, large, PNG, max_pixels=limit)
        assert found == [alone(JPEG), blamed("decoding needed more than 2 MiB"), alone(PNG)]
    with Guarded(Limits(cpu_s=0.01)) as guarded:
        assert asked(guarded, large, max_pixels=limit) == [blamed("decoding took more than 0.01 s of CPU time")]
    with Guarded() as guarded:
        assert asked(guarded, large, max_pixels=limit) == [alone(large, max_pixels=limit)]


def test_bodies_larger_than_any_pipe_and_many_small_ones(sound):
    padded = JPEG + bytes(20 << 20)
    bodies = [padded, b"", padded, *[b""] * 3000, JPEG]
    expected = [alone(padded), alone(b""), alone(padded), *[alone(b"")] * 3000, alone(JPEG)]
    assert asked(sound, *bodies) == expected


def test_a_child_is_kept_between_calls_and_ended_by_close(ailing):
    one, two, three = (asked(ailing, well(1), ill("who"))[1]["detail"] for _ in range(3))
    assert one == two == three
    pid = int(one.removeprefix("pid "))
    ailing.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert asked(ailing, ill("who"))[0]["detail"] != one


def test_work_that_is_left_in_the_middle_leaves_nothing_behind(ailing):
    def images():
        yield 0, ill("who")
        yield 1, well(1)
        raise FileNotFoundError("the tar is gone")

    before = asked(ailing, ill("who"))
    with pytest.raises(FileNotFoundError):
        list(ailing.inspect(images(), "exact", MAX_PIXELS))
    started = ailing.inspect(((n, well(n)) for n in range(50)), "exact", MAX_PIXELS)
    next(started)
    started.close()
    after = asked(ailing, ill("who"), well(1))
    assert after[0] != before[0]
    assert after[1] == blamed("well:1")


def test_an_interruption_ends_the_wait():
    def ring(number, frame):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    try:
        with Guarded(Limits(cpu_s=30), AILING) as guarded:
            asked(guarded, well(1))
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(TimeoutError):
                asked(guarded, ill("burn"))
            assert asked(guarded, well(2)) == [blamed("well:2")]
    finally:
        signal.signal(signal.SIGALRM, before)


def test_threads_have_a_child_each(ailing):
    together, found = threading.Barrier(3), {}

    def work(number):
        def images():
            yield "who", ill("who")
            together.wait(30)
            yield from ((n, well(number * 100 + n)) for n in range(100))

        found[number] = list(ailing.inspect(images(), "fast", MAX_PIXELS))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len({found[number][0][1]["detail"] for number in range(3)}) == 3
    for number in range(3):
        assert found[number][1:] == [(n, blamed(f"well:{number * 100 + n}")) for n in range(100)]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["/nowhere/python", "-m", "stages"], r"/nowhere/python -m stages cannot be run: .*No such file"),
        ([sys.executable, "-c", "import no_such_module"], r"exit code 1.*no_such_module.*by hand"),
        ([sys.executable, "-c", "print('hello there')"], r"something else than that it is ready"),
        ([sys.executable, "-c", ""], r"ended \(exit code 0\).*printed nothing"),
    ],
)
def test_a_child_that_cannot_start_says_what_was_tried(command, said):
    with Guarded(command=command) as guarded, pytest.raises(GuardError, match=said):
        asked(guarded, JPEG)


def test_no_images_start_nothing():
    assert asked(Guarded(command=["/nowhere"])) == []


PARENT = """
    import sys, time
    sys.path[:0] = [{root!r}]
    from stages.dedup.guarded import Guarded
    guarded = Guarded(command={command!r})
    def images():
        yield 0, b"ill:lock:" + sys.argv[1].encode()
        print("locked", flush=True)
        while True:
            time.sleep(0.01)
            yield 0, b""
    for _ in guarded.inspect(images(), "exact", 1000):
        pass
"""


@contextlib.contextmanager
def parent(tmp_path):
    """A process of its own group with a child that holds a lock as long as it lives."""
    script = textwrap.dedent(PARENT.format(root=str(ROOT), command=AILING))
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "lock")], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True, cwd=tmp_path,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "locked\n"
        time.sleep(0.3)
        yield process
    finally:
        process.kill()
        process.communicate()


def ends(lock, within_s=10.0):
    with lock.open("w") as file:
        for _ in range(int(within_s / 0.05)):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            time.sleep(0.05)
    return False


def test_it_does_not_outlive_a_parent_that_is_killed(tmp_path):
    with parent(tmp_path) as process:
        assert not ends(tmp_path / "lock", 0.2)
        process.kill()
        assert ends(tmp_path / "lock")


def test_ctrl_c_ends_both_and_the_child_says_nothing(tmp_path):
    with parent(tmp_path) as process:
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=20)
        assert said.count("Traceback") == 1
        assert said.rstrip().endswith("KeyboardInterrupt")
        assert "guarded_child" not in said
        assert ends(tmp_path / "lock")


def test_a_folder_named_stages_beside_the_user_is_not_taken_for_ours(tmp_path, monkeypatch):
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "__init__.py").write_text("raise SystemExit('a foreign folder')")
    monkeypatch.chdir(tmp_path)
    with Guarded() as guarded:
        assert asked(guarded, JPEG) == [alone(JPEG)]


def test_the_children_that_steps_share():
    assert [plain(found) for _, found in inspect_guarded([("a", JPEG)], "fast", MAX_PIXELS)] == [alone(JPEG, "fast")]
