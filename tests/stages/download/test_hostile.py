"""download.fetch and dedup.inspect against a hostile web on loopback: each kind of answer and its reason."""

from __future__ import annotations

import hashlib
import io
import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl
import pytest

from manifests.store import Store
from stages.dedup.inspect import Inspect
from stages.download import client
from stages.download.addresses import AddrInfo, guarded_socket
from stages.download.fetch import Fetch
from tests.stages.download.hostile_cases import (
    CASES,
    GONE,
    HALF,
    HASHES,
    LONG,
    MAX_BYTES,
    OTHERS,
    PNG,
    REASONS,
    ROBOTS,
    SHORT,
    image,
    location,
    picture,
    plays,
)
from tests.stages.download.hostile_server import HostileServer, in_turn, page
from tests.stages.handing import Done, Handed, perform, rows_of

pytestmark = pytest.mark.xdist_group("hostile")


def candidates(urls: Mapping[str, str]) -> pl.DataFrame:
    rows = [
        {"sample_id": name, "source": "cc3m", "url": url, "text": f"caption of {name}"} for name, url in urls.items()
    ]
    for row in rows:
        if row["sample_id"] in HASHES:
            row.update(source_hash=HASHES[row["sample_id"]], source_hash_kind="sha256")
    return rows_of("candidates", *rows)


def settings(server: HostileServer, **changed: Any) -> dict[str, Any]:
    network = {
        "resolve": {".web.test": server.address, ".tls.test": server.tls_address, "gone.test": ""},
        "connections": 96, "per_host": 2, "connect_s": 1.5, "read_s": 0.8, "total_s": 2.0, "attempts": 2,
        "backoff_s": 0.02,
    } | changed  # fmt: skip
    found = {f"download.network.{name}": value for name, value in network.items()}
    return found | {"download.allow_private": True, "download.max_bytes": MAX_BYTES}


@dataclass(frozen=True)
class Ran:
    """Both steps over one partition of hostile urls."""

    server: HostileServer
    store: Store
    fetched: Done
    inspected: Done
    took_s: float
    grown_bytes: int

    def reason(self, name: str) -> str | None:
        return (self.fetched.reasons() | self.inspected.reasons()).get(name)

    def left(self, name: str) -> dict[str, Any]:
        return (self.fetched.left() | self.inspected.left())[name]


def resident_bytes(line: str) -> int:
    (found,) = (row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(line))
    return int(found.split()[1]) * 1024


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with HostileServer(plays(), ROBOTS).serving() as up:
        yield up


@pytest.fixture(scope="module")
def ran(server: HostileServer, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    store = Store(str(tmp_path_factory.mktemp("store")))
    urls = {name: f"http://{name}.web.test/x.jpg" for name in CASES} | {name: case[0] for name, case in OTHERS.items()}
    rows = candidates(urls)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here (Linux, man 5 proc)
    before, begun_s = resident_bytes("VmRSS"), time.monotonic()
    fetched = perform(Fetch(), Handed(store, {("filter.pool", "candidates"): rows}), settings(server))
    tables = Handed(
        store, {("download.fetch", "fetched"): fetched.table("fetched"), ("filter.pool", "candidates"): rows}
    )
    inspected = perform(Inspect(), tables)
    took_s, grown = time.monotonic() - begun_s, resident_bytes("VmHWM") - before
    return Ran(server, store, fetched, inspected, took_s, grown)


DROPPED = frozenset("""dedup.too_many_pixels dedup.undecodable dedup.empty download.opt_out download.too_large
    download.not_image download.too_many_redirects download.bad_scheme""".split())  # fmt: skip


@pytest.mark.parametrize("name", list(REASONS))
def test_hostile_answer(ran: Ran, name: str) -> None:
    """Each url leaves for the stated reason, or its picture is inspected and kept."""
    wanted = REASONS[name]
    assert ran.reason(name) == wanted
    assert (name in set(ran.inspected.table("inspected")["sample_id"])) is (wanted is None)
    if wanted is not None:
        assert ran.left(name)["class"] == ("dropped" if wanted in DROPPED else "failed")


def test_the_hostile_web_costs_bounded_time_and_memory(ran: Ran) -> None:
    """Two attempts of total_s each, whatever the server does; the smallest bomb would take 144 MB."""
    assert ran.took_s < 20
    assert ran.grown_bytes < 130_000_000
    assert ran.fetched.books["cc3m"].seen == len(REASONS)


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("one-pixel", {"width": 1, "height": 1, "mode": "RGB", "frames": 1}),
        ("cmyk-jpeg", {"width": 40, "height": 30, "mode": "CMYK", "frames": 1}),
        ("deep-png", {"width": 40, "height": 30, "mode": "I;16", "frames": 1}),
        ("animated-gif", {"width": 40, "height": 30, "mode": "P", "frames": 3}),
        ("webp", {"width": 40, "height": 30, "mode": "RGB", "frames": 1}),
    ],
)
def test_what_is_recorded_of_odd_pictures(ran: Ran, name: str, columns: dict[str, Any]) -> None:
    row = ran.inspected.row("inspected", name)
    assert {column: row[column] for column in columns} == columns


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("html-as-jpeg", "HTML"),
        ("svg", "SVG"),
        ("avif", "AVIF"),
        ("png-bomb", "12000 x 12000"),
        ("larger-png-bomb", "400000000 pixels"),
        ("jpeg-bomb", "4290250000 pixels"),
        ("noai", "X-Robots-Tag: noai"),
        ("noai-on-the-way", "X-Robots-Tag: noai"),
        ("tdm", "tdm-reservation: 1"),
        ("robots-disallow", "robots.txt"),
        ("robots-503", "robots.txt"),
        ("bad-tls", "not trusted"),
        ("slow-drip", "total_s"),
        ("length-too-short", "not HTTP"),
        ("length-too-long", "the body ended early"),
        ("length-too-long-and-open", "read_s"),
        ("silence-in-the-body", "read_s"),
        ("redirect-to-file", "redirect"),
    ],
)
def test_the_ledger_says_why(ran: Ran, name: str, words: str) -> None:
    assert words in ran.left(name)["detail"]


@pytest.mark.parametrize("name", ["endless-body", "endless-chunks", "gzip-bomb"])
def test_no_more_than_the_bound_is_taken(ran: Ran, name: str) -> None:
    row = ran.left(name)
    assert (row["value"], row["cut"], row["status"]) == (MAX_BYTES + 1, MAX_BYTES, 200)


def test_a_body_ends_where_its_content_length_says(ran: Ran) -> None:
    """What arrives behind it is left out, whether the picture was whole by then or not."""
    rows = {name: ran.fetched.row("fetched", name) for name in ("body-goes-on", "length-too-short-then-more")}
    wanted = {"body-goes-on": LONG, "length-too-short-then-more": SHORT[:HALF]}
    assert {name: row["sha256"] for name, row in rows.items()} == {
        name: hashlib.sha256(body).hexdigest() for name, body in wanted.items()
    }


def test_silence_in_a_body_is_ended_by_read_s_before_the_total(ran: Ran) -> None:
    first, second = [a.at_s for a in ran.server.asked if a.label == "silence-in-the-body" and a.target == "/x.jpg"]
    assert 0.7 < second - first < 1.9


def test_redirects_are_followed_five_times(ran: Ran) -> None:
    assert len(ran.server.targets("redirect-loop")) == 6
    row = ran.left("redirect-loop")
    assert (row["value"], row["cut"], row["status"]) == (6, 5, 302)


def test_what_its_owner_refuses_is_never_asked_for(ran: Ran) -> None:
    assert ran.server.targets("robots-disallow") == []
    assert ran.server.targets("robots-503") == []
    assert ran.server.targets("redirect-to-disallowed") == ["/x.jpg"]
    assert ran.server.targets("behind-noai") == ["/x.jpg"]  # by its own url alone


def test_retry_after_is_honoured(ran: Ran) -> None:
    first, second = [a.at_s for a in ran.server.asked if a.label == "busy-then-well" and a.target == "/x.jpg"]
    assert second - first >= 0.95
    assert len(ran.server.targets("busy-for-hours")) == 1
    assert ran.server.targets("broken-then-well") == ["/x.jpg"] * 2
    assert ran.server.targets("broken") == ["/x.jpg"] * 2


def test_cookies_and_credentials_are_never_sent(ran: Ran) -> None:
    assert ran.server.targets("cookies") == ["/x.jpg"] * 2
    for asked in ran.server.asked:
        names = {line.partition(b":")[0].lower() for line in asked.head.strip().split(b"\r\n")[1:]}
        assert names <= {b"host", b"user-agent", b"accept", b"accept-encoding", b"connection"}
        assert b"hunter2" not in asked.head
    assert len(ran.server.targets("credentials")) == 1
    assert "hunter2" not in str(ran.fetched.row("fetched", "credentials")["final_url"])


def test_urls_are_sent_as_ascii_and_on_one_line(ran: Ran) -> None:
    assert ran.server.targets("unicode") == ["/Gr%C3%B6%C3%9Fe%20%E5%9B%BE%E7%89%87/%F0%9F%9B%B0?q=%C3%A9+%E2%80%8B"]
    assert len(ran.server.targets("xn--bcher-kva")) == 1
    (target,) = ran.server.targets("control")
    assert target.startswith("/a")
    assert not {"\r", "\n", " "} & set(target)
    assert ran.server.targets("long") == [f"/{'x' * 8192}.jpg"]


def test_file_names_never_come_from_urls(ran: Ran) -> None:
    (path,) = ran.fetched.files("images")
    with tarfile.open(fileobj=io.BytesIO(ran.store.read(path))) as tar:
        names = tar.getnames()
    digests = set(ran.fetched.table("fetched")["sha256"])
    assert {name.partition(".")[0] for name in names} == digests
    assert {name.partition(".")[2] for name in names} <= {"jpg", "png", "webp", "gif", "bin"}


def test_bytes_behind_an_answer_are_nobodys_picture(ran: Ran) -> None:
    """A second answer nobody asked for, on a connection that is kept, must not become the next url's body."""
    rows = ran.fetched.table("fetched").filter(pl.col("sample_id").str.starts_with("smuggled"))
    assert set(rows["sha256"]) == {hashlib.sha256(picture(13)).hexdigest()}


def test_wrong_hashes_are_kept_with_their_verdict_or_dropped_when_asked_for(ran: Ran, tmp_path: Path) -> None:
    verdicts = {name: ran.fetched.row("fetched", name)["hash_verdict"] for name in (*HASHES, "plain")}
    assert verdicts == {"hash-right": "match", "hash-wrong": "differs", "plain": "unknown"}
    rows = candidates({name: OTHERS[name][0] for name in HASHES})
    tables = Handed(Store(str(tmp_path)), {("filter.pool", "candidates"): rows})
    done = perform(Fetch(), tables, settings(ran.server) | {"download.on_hash_differs": "drop"})
    assert done.reasons() == {"hash-wrong": "download.hash_differs"}
    assert done.left()["hash-wrong"]["class"] == "dropped"
    assert done.table("fetched")["sample_id"].to_list() == ["hash-right"]


def test_the_same_bytes_from_unrelated_urls_are_listed(ran: Ran) -> None:
    listed = {row["sha256"]: row for row in ran.fetched.result.facts["placeholders"]}  # type: ignore[union-attr, call-overload, index]
    gone = hashlib.sha256(GONE).hexdigest()
    assert listed[gone] == {"sha256": gone, "urls": 12, "texts": 12}


# -- addresses that are nobody's business ------------------------------------------------------------------------

PRIVATE = {
    "ipv4": "127.0.0.2", "home": "10.0.0.1", "cgnat": "100.64.0.1", "metadata": "169.254.169.254",
    "multicast": "224.0.0.1", "unspecified": "0.0.0.0", "ipv6": "[::1]", "ipv6-local": "[fd00::1]",
    "ipv6-link": "[fe80::1]", "mapped": "[::ffff:127.0.0.1]", "mapped-hex": "[::ffff:7f00:1]",
    "nat64": "[64:ff9b::7f00:1]", "six-to-four": "[2002:7f00:1::]", "decimal": "2130706433", "hex": "0x7f000001",
    "hex-parts": "0x7f.0x0.0x0.0x1", "octal": "0177.0.0.1", "short": "127.1", "dot-behind": "127.0.0.1.",
    "credentials": "web.test@127.0.0.1", "wide-digits": "\uff11\uff12\uff17.0.0.1", "localhost": "localhost",
    "by-name": "inside.example",
}  # fmt: skip


@dataclass
class Guarded:
    """Judges as the real guard does, but takes the hostile server's own address for public; says who was dialled."""

    dialled: list[tuple[str, int]]


@pytest.fixture
def guarded(server: HostileServer, monkeypatch: pytest.MonkeyPatch) -> Guarded:
    log = Guarded([])
    judge, let = guarded_socket(allow_private=False), guarded_socket(allow_private=True)

    def factory(allow_private: bool) -> Any:
        assert not allow_private

        def make(info: AddrInfo) -> Any:
            found = (let if info[4][:2] == ("127.0.0.1", server.port) else judge)(info)
            log.dialled.append(info[4][:2])
            return found

        return make

    monkeypatch.setattr(client, "guarded_socket", factory)
    return log


def judged(
    server: HostileServer,
    where: Path,
    urls: Mapping[str, str],
    changed: Mapping[str, Any] = MappingProxyType({}),
    *,
    final: bool = True,
) -> Done:
    tables = Handed(Store(str(where)), {("filter.pool", "candidates"): candidates(urls)})
    network = {"nameservers": [server.dns_address], "attempts": 1}
    strict = settings(server, **network) | {"download.allow_private": False, **changed}
    return perform(Fetch(), tables, strict, final=final)


@pytest.fixture
def leading(server: HostileServer, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Hosts that redirect to each private address, by name of the address."""
    acts = {f"to-{name}": location(f"http://{host}:8080/x.jpg") for name, host in PRIVATE.items()}
    monkeypatch.setattr(server, "plays", {**server.plays, **acts})
    monkeypatch.setattr(server, "names", {"inside.example": [["10.0.0.9"]]})
    return {name: f"http://to-{name}.web.test/x.jpg" for name in PRIVATE}


@pytest.mark.parametrize("robots", [True, False], ids=["asking-robots", "without-robots"])
@pytest.mark.parametrize("direct", [True, False], ids=["listed", "redirected"])
def test_private_addresses_are_never_dialled(
    server: HostileServer, guarded: Guarded, leading: dict[str, str], tmp_path: Path, robots: bool, direct: bool
) -> None:
    urls = {name: f"http://{host}:8080/x.jpg" for name, host in PRIVATE.items()} if direct else leading
    done = judged(server, tmp_path, urls, {"download.consent.robots": robots})
    assert done.reasons() == dict.fromkeys(PRIVATE, "download.private_address")
    assert set(guarded.dialled) <= {("127.0.0.1", server.port)}
    assert bool(guarded.dialled) is not direct
    assert "10.0.0.9 is private" in done.left()["by-name"]["detail"]


@pytest.mark.parametrize("final", [False, True])
def test_robots_txt_leads_to_no_private_address_either(
    server: HostileServer, guarded: Guarded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, final: bool
) -> None:
    """Its host has done nothing wrong: the rows are deferred, and failed after the last round; never dropped."""
    to = page(b"", "Location: http://169.254.169.254/robots.txt", status="301 Moved Permanently")
    monkeypatch.setattr(server, "robots", {**server.robots, "plain": to})
    asked = len(server.targets("plain"))
    done = judged(server, tmp_path, {"a": "http://plain.web.test/x.jpg"}, final=final)
    row = done.left()["a"]
    assert (row["reason"], row["class"]) == ("download.refused", "failed" if final else "deferred")
    assert row["detail"] == "robots.txt: redirects to http://169.254.169.254: 169.254.169.254 is metadata"
    assert set(guarded.dialled) == {("127.0.0.1", server.port)}
    assert len(server.targets("plain")) == asked


def test_a_name_that_changes_its_mind_gains_nothing(
    server: HostileServer, guarded: Guarded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """DNS rebinding: within a call a name keeps its first address, and in the next the new one is judged."""
    acts = {"rebind": in_turn(page(b"", "Location: /y.jpg", status="302 Found")), "mixed": image(PNG)}
    monkeypatch.setattr(server, "plays", {**server.plays, **acts})
    monkeypatch.setattr(
        server, "names", {"rebind.example": [["127.0.0.1"], ["10.0.0.1"]], "mixed.example": [["10.0.0.1", "127.0.0.1"]]}
    )
    server.looked_up.clear()
    urls = {name: f"http://{name}.example:{server.port}/x.jpg" for name in ("rebind", "mixed")}
    first = judged(server, tmp_path, urls, {"download.max_redirects": 1})
    assert first.reasons() == {"rebind": "download.too_many_redirects"}  # it was reached, twice, at its first address
    assert server.targets("rebind") == ["/x.jpg", "/y.jpg"]
    assert server.looked_up["rebind.example"] == 1
    second = judged(server, tmp_path, {"rebind": urls["rebind"]})
    assert second.reasons() == {"rebind": "download.private_address"}
    assert server.looked_up["rebind.example"] == 2
    assert len(server.targets("rebind")) == 2
    assert set(guarded.dialled) == {("127.0.0.1", server.port)}
