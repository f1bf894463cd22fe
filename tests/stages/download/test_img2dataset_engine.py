"""The img2dataset engine against a real server on loopback, beside the native engine."""

import asyncio
import collections
import contextlib
import importlib.metadata
import io
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from manifests.store import Store
from stages.download import img2dataset_child, img2dataset_process
from stages.download.answers import Answer, Consent, Limits, Network
from stages.download.client import fetch_all
from stages.download.fetch import Fetch
from stages.download.img2dataset_engine import LACKS, fetch_with_img2dataset, require
from stages.download.img2dataset_process import Img2datasetError
from stages.download.img2dataset_words import HANGS, reason_of
from stages.step import ModelMissingError
from tests.stages.handing import Handed, perform, rows_of

MAX_BYTES = 20_000
LIMITS = Limits(MAX_BYTES, frozenset({"jpeg", "png", "webp", "gif"}), 5, True, Consent(False, True, False))
NETWORK = Network(16, 16, 1.0, 1.0, 2.0, 2, 0.01, {}, "rs5m-build-test")


def image(kind: str, shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (24, 16), (shade % 256, shade // 256, 7)).save(buffer, kind)
    return buffer.getvalue()


BODIES = {kind: image(kind) for kind in ("jpeg", "png", "webp", "gif", "bmp")}
HTML = b"<!DOCTYPE html><html><body>gone</body></html>" * 10


def http(status: str, body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {size}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


PAGES: dict[str, bytes] = {
    **{f"/{kind}": http("200 OK", body) for kind, body in BODIES.items()},
    "/empty": http("200 OK"),
    "/html": http("200 OK", HTML, "Content-Type: image/jpeg"),
    "/large": http("200 OK", BODIES["jpeg"] + bytes(MAX_BYTES)),
    "/exact": http("200 OK", BODIES["jpeg"].ljust(MAX_BYTES, b"\0")),
    "/short": http("200 OK", BODIES["jpeg"], length=5000),
    "/garbled": b"SSH-2.0-OpenSSH\r\n\r\n",
    "/close": b"",
    "/noai": http("200 OK", BODIES["jpeg"], "X-Robots-Tag: noai, noarchive"),
    "/ours": http("200 OK", BODIES["jpeg"], "X-Robots-Tag: rs5m-build: noindex"),
    "/theirs": http("200 OK", BODIES["jpeg"], "X-Robots-Tag: otherbot: noindex"),
    "/allowed": http("200 OK", BODIES["jpeg"], "X-Robots-Tag: noarchive"),
    "/moved": http("302 Found", b"", "Location: /jpeg"),
    "/nowhere": http("302 Found"),
    "/loop": http("302 Found", b"", "Location: /loop"),
    "/ftp": http("302 Found", b"", "Location: gopher://127.0.0.1/x"),
    "/file": http("302 Found", b"", "Location: file:///etc/passwd"),
    **{
        f"/{status}": http(f"{status} Words: timed out, IncompleteRead(")
        for status in (304, 400, 401, 403, 404, 410, 429, 451, 500, 503, 599)
    },
}


class Site:
    """A loopback server in a thread: whole answers by path, some that hang, one that resets."""

    def __init__(self) -> None:
        self.pages = dict(PAGES)
        self.asked: collections.Counter[str] = collections.Counter()
        self.heads: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def __enter__(self) -> "Site":
        self._thread.start()
        self._up.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        self._over = asyncio.Event()
        server = await asyncio.start_server(self._on_connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._up.set()
        await self._over.wait()
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                path = head.split(" ")[1]
                self.asked[path] += 1
                self.heads.append(head)
                await self._answer(path, writer)
        finally:
            writer.transport.abort() if path == "/reset" else writer.close()

    async def _answer(self, path: str, writer: asyncio.StreamWriter) -> None:
        if path == "/reset":
            sock = writer.get_extra_info("socket")
            sock.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER of zero: close sends RST
        elif path == "/silent":
            await asyncio.sleep(30)
        elif path.startswith("/drip"):
            writer.write(http("200 OK", BODIES["jpeg"], length=100_000)[:-5])
            while True:
                writer.write(b".")
                await writer.drain()
                await asyncio.sleep(0.1)
        else:
            writer.write(self.pages.get(path, self.pages["/404"]))
            await writer.drain()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site() as running:
        yield running


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")  # one of the things that the library lacks


def fetch(
    urls: list[str], scratch: Path, limits: Limits = LIMITS, budget_s: float = 60.0, **network: Any
) -> dict[str, Answer]:
    """Fetch and check that nothing is answered twice and nothing is left behind."""
    answers: list[Answer] = []
    fetch_with_img2dataset(urls, limits, replace(NETWORK, **network), scratch, answers.append, budget_s)
    assert max(collections.Counter(answer.url for answer in answers).values(), default=0) <= 1
    assert list(scratch.iterdir()) == []
    return {answer.url: answer for answer in answers}


def unwanted(answer: Answer) -> None:
    pytest.fail(f"delivered {answer}")


async def fetch_natively(urls: list[str]) -> list[Answer]:
    """Each url by itself: on a plain server no breaker and no pause of a neighbour decides."""
    answers: list[Answer] = []
    await asyncio.gather(*(fetch_all([url], LIMITS, NETWORK, answers.append) for url in urls))
    return answers


def test_the_manifest_says_which_engine_it_was_and_what_that_lacks(site: Site, tmp_path: Path) -> None:
    rows = [{"sample_id": f"{n:032x}", "source": "cc3m", "url": site.url(p)} for n, p in enumerate(("/jpeg", "/404"))]
    settings = {"download.engine": "img2dataset", "download.allow_private": True, "download.network.attempts": 1}
    tables = Handed(Store(str(tmp_path)), {("filter.pool", "candidates"): rows_of("candidates", *rows)})
    done = perform(Fetch(), tables, settings, partition="web-0000")
    assert done.table("fetched")["url"].to_list() == [site.url("/jpeg")]
    assert done.reasons() == {f"{1:032x}": "download.http_404"}
    told = {"name": "img2dataset", "version": importlib.metadata.version("img2dataset"), "lacks": list(LACKS)}
    assert done.result.facts["engine"] == told


def test_reasons_and_bytes_are_those_of_the_native_engine(site: Site, tmp_path: Path) -> None:
    paths = [*PAGES, "/reset", "/silent"]
    urls = [*map(site.url, paths), "http://127.0.0.1:1/refused", "http://no-such-name.invalid/x", "https://", "x.jpg"]
    ours = fetch(urls, tmp_path)
    native = asyncio.run(fetch_natively(urls))
    assert {answer.url for answer in native} == set(ours) == set(urls)
    for answer in native:
        mine = ours[answer.url]
        if answer.url.endswith(".invalid/x"):  # without a name server at hand both say dns_temporary, or either
            assert {mine.reason, answer.reason} <= {"download.dns", "download.dns_temporary"}
            continue
        facts = ("reason", "body", "media_type")
        assert [getattr(mine, f) for f in facts] == [getattr(answer, f) for f in facts], answer
        assert mine.http_status == answer.http_status or mine.reason == "download.short_body", (mine, answer)
    assert ours[site.url("/moved")].body == BODIES["jpeg"]


def test_what_each_answer_says(site: Site, tmp_path: Path) -> None:
    paths = ["/jpeg", "/empty", "/html", "/bmp", "/large", "/exact", "/noai", "/410", "/loop", "/file", "/garbled"]
    found = fetch([site.url(path) for path in paths], tmp_path)
    told = {path: replace(found[site.url(path)], url="", body=b"") for path in paths}
    no = "download."
    assert told == {
        "/jpeg": Answer("", None, media_type="jpeg", http_status=200),
        "/exact": Answer("", None, media_type="jpeg", http_status=200),
        "/empty": Answer("", None, media_type="empty", http_status=200),
        "/html": Answer("", no + "not_image", http_status=200, detail="the body is HTML"),
        "/bmp": Answer("", no + "not_image", http_status=200, detail="bmp is not in download.media"),
        "/large": Answer(
            "",
            no + "too_large",
            http_status=200,
            value=float(len(BODIES["jpeg"]) + MAX_BYTES),
            cut=float(MAX_BYTES),
            detail="measured when it was read",
        ),
        "/noai": Answer("", no + "opt_out", http_status=200, detail="X-Robots-Tag refuses"),
        "/410": Answer("", no + "http_410", http_status=410, detail="HTTP status 410"),
        "/loop": Answer("", no + "too_many_redirects", http_status=302, detail="by img2dataset's own bound"),
        "/file": Answer("", no + "bad_scheme", http_status=302, detail="redirect: not http or https"),
        "/garbled": Answer("", no + "reset", detail="SSH-2.0-OpenSSH??"),
    }


def test_settings_reach_the_library(site: Site, tmp_path: Path) -> None:
    site.asked.clear()
    site.heads.clear()
    unheeded = replace(LIMITS, consent=Consent(robots=False, headers=False, tdm=False))
    found = fetch(
        [site.url("/noai"), site.url("/404"), site.url("/silent")], tmp_path, unheeded, attempts=3, read_s=0.3
    )
    assert [found[site.url(path)].reason for path in ("/noai", "/404", "/silent")] == [
        None,
        "download.http_404",
        "download.timeout",
    ]
    assert site.asked == {"/noai": 1, "/404": 3, "/silent": 3}  # LACKS: a 404 is asked again too
    assert all("(compatible; rs5m-build; " in head for head in site.heads)


def test_each_url_gets_its_own_bytes_and_names_never_become_paths(site: Site, tmp_path: Path) -> None:
    names = [f"/many/{n}.jpg" for n in range(290)] + [f"/..%2f{n}/?q=\u00e9 {n}#x" for n in range(10)]
    for n, name in enumerate(names):
        path = name if n < 290 else f"/..%2F{n - 290}/?q=%C3%A9+{n - 290}"
        site.pages[path] = http("200 OK", image("png", n % 100))
    found = fetch([*map(site.url, names), site.url(names[0])], tmp_path)
    assert len(found) == 300
    for n, name in enumerate(names):
        assert found[site.url(name)].body == image("png", n % 100), name


def test_spellings_that_may_not_be_asked_are_refused_before(site: Site, tmp_path: Path) -> None:
    site.asked.clear()
    public = replace(LIMITS, allow_private=False)
    odd = ["http://2130706433/", f"http://0x7f.1:{site.port}/jpeg", "http://[::ffff:10.0.0.1]/", "http://[::1]/"]
    odd += [site.url("/jpeg"), "ftp://127.0.0.1/x", "file:///etc/passwd", ""]
    found = fetch(odd, tmp_path, public)
    assert [found[url].reason for url in odd] == ["download.private_address"] * 5 + ["download.bad_scheme"] * 3
    assert found[odd[1]].detail == "127.0.0.1 is loopback"
    assert not site.asked


def test_answers_that_drip_without_end_are_given_up_and_the_rest_is_asked(site: Site, tmp_path: Path) -> None:
    drips = [site.url(f"/drip{n}") for n in range(2)]
    images = [site.url(f"/jpeg?{n}") for n in range(6)]
    site.pages |= {f"/jpeg?{n}": PAGES["/jpeg"] for n in range(6)}
    begun = time.monotonic()
    found = fetch([*drips, *images], tmp_path, connections=2, attempts=1, total_s=1.5)
    assert time.monotonic() - begun < 45
    assert {found[url].reason for url in images} == {None}
    assert [(found[url].reason, found[url].detail) for url in drips] == [
        ("download.timeout", "not complete within total_s")
    ] * 2


Pretend = Callable[[str, str], None]

# A library whose process does what the test says, in place of the real one.
FAKE = """
import os, time
class Resizer:
    def __init__(self, *_a, **_k): pass
class Downloader:
    def __init__(self, sample_writer_class, **_k): self.writer = sample_writer_class(0, "", False, 1, None, "jpg")
    def fails(self, ordinal, words):
        self.writer.write(None, "0", None, {"ordinal": ordinal, "error_message": words})
    def download_shard(self, row):
        # here
"""


@pytest.fixture
def pretend(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """Put a package in the place of img2dataset: what its import does, and what its downloader does."""
    folder = tmp_path_factory.mktemp("shadow")
    monkeypatch.syspath_prepend(str(folder))

    def write(on_import: str, on_shard: str) -> None:
        package = folder / "img2dataset"
        package.mkdir(exist_ok=True)
        (package / "__init__.py").write_text(on_import)
        for name in ("downloader", "resizer"):
            (package / f"{name}.py").write_text(FAKE.replace("# here", on_shard))

    return write


def test_the_budget_ends_it_and_keeps_what_came(site: Site, tmp_path: Path, pretend: Pretend) -> None:
    pretend("", 'self.fails(1, "HTTP Error 404: x"); time.sleep(600)')
    begun = time.monotonic()
    found = fetch([site.url("/drip"), site.url("/png")], tmp_path, budget_s=6.0, total_s=60.0)
    assert 5.9 < time.monotonic() - begun < 12
    assert [answer.reason for answer in found.values()] == ["download.http_404"]
    assert fetch([site.url("/png")], tmp_path, budget_s=0.0) == {}


def test_what_the_receiver_raises_ends_the_process(site: Site, tmp_path: Path, pretend: Pretend) -> None:
    def deliver(_answer: Answer) -> None:
        raise KeyError("full")

    marker = tmp_path / "process"
    words = f'open({str(marker)!r}, "w").write(str(os.getpid())); self.fails(0, "x"); time.sleep(600)'
    pretend("", words)
    with pytest.raises(KeyError, match="full"):
        fetch_with_img2dataset([site.url("/png")], LIMITS, NETWORK, tmp_path, deliver, 60.0)
    with pytest.raises(ProcessLookupError):
        os.kill(int(marker.read_text()), 0)
    assert list(tmp_path.iterdir()) == [marker]


def test_the_process_ends_with_its_parent(site: Site, tmp_path: Path, pretend: Pretend) -> None:
    marker = tmp_path / "process"
    pretend("", f'open({str(marker)!r}, "w").write(str(os.getpid())); time.sleep(600)')
    job = img2dataset_process._job(tmp_path, [site.url("/png")], LIMITS, NETWORK)
    process = img2dataset_process._Process(job)
    with process:
        frame = process.receive(30)
        assert frame is not None
        assert frame[0] == img2dataset_child.READY
        assert process._process.stdin is not None
        process._process.stdin.close()  # as when the parent is killed
        with pytest.raises(ChildProcessError):
            process.receive(30)


def test_a_process_that_ends_by_itself_is_an_error_and_no_answer(site: Site, tmp_path: Path, pretend: Pretend) -> None:
    pretend("", 'os.write(2, b"out of memory"); os._exit(9)')
    with pytest.raises(ChildProcessError, match="ended by itself with 9: out of memory"):
        fetch_with_img2dataset([site.url("/png")], LIMITS, NETWORK, tmp_path, unwanted, 60.0)
    pretend("raise ImportError('No module named imghdr')", "pass")
    with pytest.raises(Img2datasetError, match="does not import: No module named imghdr"):
        fetch_with_img2dataset([site.url("/png")], LIMITS, NETWORK, tmp_path, unwanted, 60.0)


def test_a_url_the_library_loses_is_told_and_lies_about_handles_do_no_harm(
    site: Site, tmp_path: Path, pretend: Pretend
) -> None:
    pretend("", 'self.fails(1, "[Errno 24] Too many open files")')
    found = fetch([site.url("/png"), site.url("/gif")], tmp_path)
    assert sorted((answer.reason, answer.detail) for answer in found.values()) == [
        ("download.reset", "[Errno 24] Too many open files"),
        ("download.reset", "img2dataset gave no row"),
    ]


def test_a_machine_without_handles_is_not_held_against_the_server() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            reason_of("<urlopen error [Errno 24] Too many open files>")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_it_says_what_is_missing(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mapped = replace(NETWORK, resolve={".web.test": "127.0.0.1:1"})
    with pytest.raises(Img2datasetError, match=r"download\.network\.resolve .* needs the native engine"):
        require(mapped)
    require(NETWORK)
    monkeypatch.setitem(sys.modules, "img2dataset", None)
    with pytest.raises(ModelMissingError, match=r"not installed: pip install 'rs5m-build\[img2dataset\]'$"):
        fetch_with_img2dataset([site.url("/png")], LIMITS, NETWORK, tmp_path, unwanted, 60.0)
    assert all(line == line.strip() and "\n" not in line and len(line) < 120 for line in LACKS)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("<urlopen error timed out>", "timeout"),
        ("The read operation timed out", "timeout"),
        ("<urlopen error _ssl.c:989: The handshake operation timed out>", "timeout"),
        ("<urlopen error [Errno 110] Connection timed out>", "timeout"),
        (HANGS, "timeout"),
        ("<urlopen error [Errno 111] Connection refused>", "refused"),
        ("<urlopen error [Errno 113] No route to host>", "refused"),
        ("<urlopen error [Errno 104] Connection reset by peer>", "reset"),
        ("[Errno 104] Connection reset by peer", "reset"),
        ("<urlopen error [Errno -2] Name or service not known>", "dns"),
        ("<urlopen error [Errno -5] No address associated with hostname>", "dns"),
        ("<urlopen error [Errno -3] Temporary failure in name resolution>", "dns_temporary"),
        ("encoding with 'idna' codec failed (UnicodeError: label empty or too long)", "dns"),
        ("<urlopen error [SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)>", "tls"),
        (
            "<urlopen error [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed (_ssl.c:1006)>",
            "tls",
        ),
        ("<urlopen error EOF occurred in violation of protocol (_ssl.c:1006)>", "tls"),
        ("IncompleteRead(0 bytes read)", "short_body"),
        ("IncompleteRead(2052 bytes read, 2948 more expected)", "short_body"),
        ("<urlopen error ftp error: error_perm('550 no')>", "bad_scheme"),
        ("got more than 100 headers", "reset"),
        ("HTTP Error 999: Request denied", "http_4xx"),
        ("HTTP Error 404: Use of image disallowed by X-Robots-Tag directive", "http_404"),
        ("", "reset"),
        ("words of another release", "reset"),
    ],
)
def test_words_become_reasons(words: str, reason: str) -> None:
    assert reason_of(words)[0] == f"download.{reason}"


WATCH = """
import json, os, sys
asked = []
def hook(event, args):
    if event == "socket.connect":
        asked.append(str(args[1]))
    elif event == "socket.getaddrinfo":
        asked.append(str(args[0]))
    elif event in ("os.fork", "subprocess.Popen", "os.posix_spawn"):
        asked.append(event)
sys.addaudithook(hook)
from manifests.store import Store
from stages.download import img2dataset_child
end = os._exit
os._exit = lambda code: None
img2dataset_child.main(sys.argv[1], int(sys.argv[2]))
print(json.dumps(asked))
"""


def test_the_library_asks_nobody_but_the_servers_of_the_list(site: Site, tmp_path: Path) -> None:
    job = img2dataset_process._job(tmp_path, [site.url("/png")], LIMITS, NETWORK)
    reading, writing = os.pipe()
    environment = {
        **os.environ,
        **img2dataset_process._ENVIRONMENT,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", WATCH, str(job), str(writing)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=(writing,),
        env=environment,
    ) as process:
        out, _ = process.communicate(timeout=60)
    os.close(reading)
    os.close(writing)
    assert set(json.loads(out)) == {f"('127.0.0.1', {site.port})", "127.0.0.1"}


def test_nothing_heavy_is_imported_with_it() -> None:
    code = "import stages.download.img2dataset_engine, sys; print([m for m in sys.modules if m.split('.')[0] in HEAVY])"
    heavy = {"torch", "ray", "cv2", "albumentations", "img2dataset", "pandas", "wandb"}
    out = subprocess.run([sys.executable, "-c", f"HEAVY = {heavy}\n{code}"], capture_output=True, check=True, text=True)
    assert out.stdout.strip() == "[]"
