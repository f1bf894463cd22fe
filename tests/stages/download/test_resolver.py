"""Names: the mapping in front, real name servers on loopback behind, remembered answers."""

import asyncio
import collections
import contextlib
import errno
import gc
import resource
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.download import resolver as module
from stages.download.resolver import GIVE_UP_S, IN_FLIGHT, PREFETCHED, MappedResolver, name_is_missing

MAPPING = {
    ".rs5m.test": "127.0.0.1:8080",
    "nowhere.rs5m.test": "",
    ".deep.rs5m.test": "127.0.0.2",
    "six.test": "[::1]:81",
    "Plain6.test": "::1",
}

# -- a name server -----------------------------------------------------------------------------------------------

A, AAAA, CNAME, SOA = 1, 28, 5, 6
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)


@dataclass(frozen=True)
class Reply:
    """One answer: records of (owner, type, data in the notation of zone files), in order."""

    records: Sequence[tuple[str, int, str]] = ()
    rcode: int = NOERROR
    delay_s: float = 0.0
    truncated: bool = False
    soa: bool = True


Script = Callable[[str, int, int], Reply | bytes | None]
"""From a name, A or AAAA, and how often that was asked before, to an answer, bytes to send as they are, or silence."""


def wire_name(name: str) -> bytes:
    labels = [label.encode() for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def record(owner: str, kind: int, data: str) -> bytes:
    if kind == SOA:
        raw = wire_name("ns." + owner) + wire_name("admin." + owner) + struct.pack("!5I", 1, 60, 60, 60, 60)
    elif kind == CNAME:
        raw = wire_name(data)
    else:
        raw = socket.inet_pton(socket.AF_INET if kind == A else socket.AF_INET6, data)
    return wire_name(owner) + struct.pack("!HHIH", kind, 1, 60, len(raw)) + raw


class NameServer(asyncio.DatagramProtocol):
    """Answers on UDP, and on TCP at the same port, as its script says; counts what it is asked."""

    def __init__(self, script: Script) -> None:
        self.asked: collections.Counter[tuple[str, int]] = collections.Counter()
        self.by_tcp = self.peak = 0
        self.address = ""
        self._script = script
        self._open: collections.Counter[str] = collections.Counter()
        self._later: set[asyncio.Task[None]] = set()

    @property
    def names(self) -> list[str]:
        return sorted({name for name, _ in self.asked})

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._handle(data, lambda answer: self._udp.sendto(answer, addr), udp=True)

    def _handle(self, query: bytes, send: Callable[[bytes], Any], *, udp: bool) -> None:
        at, labels = 12, []
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        name, kind = ".".join(labels), struct.unpack_from("!H", query, at + 1)[0]
        reply = self._script(name, kind, self.asked[name, kind])
        self.asked[name, kind] += 1
        self.by_tcp += not udp
        if isinstance(reply, bytes):
            send(query[:2] + reply)
        elif reply is not None:
            task = asyncio.create_task(self._answer(reply, name, query[: at + 5], send, udp))
            self._later.add(task)
            task.add_done_callback(self._later.discard)

    async def _answer(self, reply: Reply, name: str, query: bytes, send: Callable[[bytes], Any], udp: bool) -> None:
        self._open[name] += 1
        self.peak = max(self.peak, len(self._open))
        await asyncio.sleep(reply.delay_s)
        self._open -= collections.Counter([name])
        cut = reply.truncated and udp
        answers = [] if cut else [record(*entry) for entry in reply.records]
        last = reply.records[-1][1] if reply.records else None
        negative = reply.rcode in (NOERROR, NXDOMAIN) and last not in (A, AAAA) and reply.soa
        authority = [record(name.rpartition(".")[2], SOA, "")] if negative else []
        flags = 0x8180 | reply.rcode | (0x0200 if cut else 0)
        head = query[:2] + struct.pack("!5H", flags, 1, len(answers), len(authority), 0)
        send(head + query[12:] + b"".join(answers + authority))

    async def _on_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                size = struct.unpack("!H", await reader.readexactly(2))[0]
                query = await reader.readexactly(size)
                self._handle(query, lambda a: writer.write(struct.pack("!H", len(a)) + a), udp=False)
        writer.close()

    @contextlib.asynccontextmanager
    async def up(self) -> AsyncIterator["NameServer"]:
        tcp = await asyncio.start_server(self._on_tcp, "127.0.0.1", 0)
        port = tcp.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        self._udp, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", port))
        self.address = f"127.0.0.1:{port}"
        try:
            yield self
        finally:
            self._udp.close()
            tcp.close()
            for task in self._later:
                task.cancel()
            await asyncio.gather(*self._later, return_exceptions=True)
            await asyncio.sleep(0.01)


def found(name: str, kind: int, *addresses: str) -> Reply:
    return Reply([(name, kind, address) for address in addresses if (":" in address) == (kind == AAAA)])


def always(reply: Reply | bytes | None) -> Script:
    return lambda _name, _kind, _before: reply


def with_addresses(*addresses: str) -> Script:
    return lambda name, kind, _before: found(name, kind, *addresses)


def using(mapping: dict[str, str], work: Callable[[MappedResolver], Awaitable[Any]], *scripts: Script) -> Any:
    """Run `work` with a resolver whose name servers follow the scripts; returns its result, then the servers."""

    async def main() -> Any:
        async with contextlib.AsyncExitStack() as stack:
            servers = [await stack.enter_async_context(NameServer(script).up()) for script in scripts]
            resolver = MappedResolver(mapping, [server.address for server in servers])
            try:
                result = await work(resolver)
            finally:
                await resolver.close()
        assert {task for task in asyncio.all_tasks() if not task.done()} == {asyncio.current_task()}
        return (result, *servers) if servers else result

    return asyncio.run(main())


async def hosts(resolver: MappedResolver, name: str, **more: Any) -> list[str]:
    return [entry["host"] for entry in await resolver.resolve(name, 80, **more)]


async def error_of(resolver: MappedResolver, name: str) -> socket.gaierror:
    with pytest.raises(socket.gaierror) as failed:
        await resolver.resolve(name, 80)
    return failed.value


def open_handles() -> set[str]:
    handles = set()
    for handle in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            handles.add(f"{handle.name} {handle.readlink()}")
    return handles


# -- the mapping -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "address", "port"),
    [
        ("a.rs5m.test", "127.0.0.1", 8080),
        ("A.B.RS5M.test.", "127.0.0.1", 8080),
        ("x.deep.rs5m.test", "127.0.0.2", 443),
        ("deep.rs5m.test", "127.0.0.1", 8080),
        ("six.test", "::1", 81),
        ("plain6.test", "::1", 443),
    ],
)
def test_longest_match_wins(host: str, address: str, port: int) -> None:
    async def work(resolver: MappedResolver) -> Any:
        results = await resolver.resolve(host, 443)
        assert resolver.knows(host)
        return results

    assert [(entry["host"], entry["port"]) for entry in using(MAPPING, work)] == [(address, port)]


def test_an_empty_value_means_that_the_name_does_not_exist() -> None:
    assert name_is_missing(using(MAPPING, lambda resolver: error_of(resolver, "nowhere.rs5m.test")))


@pytest.mark.parametrize("value", ["localhost", "127.0.0.1:http", "[::1", "1.2.3.4.5", "127.0.0.1:70000", "[::1]8"])
def test_a_value_that_is_no_address_is_refused_with_its_name(value: str) -> None:
    with pytest.raises(ValueError, match=r"'a\.test'.*address:port"):
        MappedResolver({"a.test": value})


def test_a_mapped_name_opens_no_channel_and_asks_nobody() -> None:
    async def work(resolver: MappedResolver) -> set[str]:
        before = open_handles()
        resolver.prefetch("a.rs5m.test")
        await resolver.resolve("a.rs5m.test", 80)
        return open_handles() - before

    opened, server = using(MAPPING, work, always(None))
    assert not opened
    assert not server.asked


# -- name servers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["", "dns.test", "1.2.3.4:", "1.2.3.4:0", "1.2.3.4:dns", "[::1]:99999", "[1.2.3.4"])
def test_a_name_server_that_is_no_address_is_refused_with_what_to_write(value: str) -> None:
    with pytest.raises(ValueError, match=r"download\.network\.nameservers: .*address:port"):
        MappedResolver({}, [value])


@given(st.text(max_size=40))
def test_any_text_is_a_name_server_or_refused(value: str) -> None:
    with contextlib.suppress(ValueError):
        MappedResolver({}, [value])


@given(st.ip_addresses().filter(lambda ip: "%" not in str(ip)), st.integers(1, 65535))
def test_every_address_with_a_port_or_without_is_a_name_server(address: Any, port: int) -> None:
    with_port = f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
    assert module._name_server(with_port) == with_port
    assert module._name_server(str(address)) == module._name_server(with_port.rpartition(":")[0] + ":53")


def test_a_name_has_ipv4_before_ipv6_and_keeps_the_servers_order_within() -> None:
    async def work(resolver: MappedResolver) -> Any:
        both = await hosts(resolver, "a.test")
        assert resolver.knows("A.test.")
        return both, await hosts(resolver, "a.test", family=socket.AF_INET6)

    (both, six), _ = using({}, work, with_addresses("2001:db8::1", "192.0.2.9", "192.0.2.1", "2001:db8::0"))
    assert both == ["192.0.2.9", "192.0.2.1", "2001:db8::1", "2001:db8::"]
    assert six == ["2001:db8::1", "2001:db8::"]


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_a_name_of_one_family_has_just_that(address: str) -> None:
    async def work(resolver: MappedResolver) -> Any:
        other = socket.AF_INET if ":" in address else socket.AF_INET6
        with pytest.raises(socket.gaierror) as none:
            await resolver.resolve("a.test", 80, other)
        assert name_is_missing(none.value)
        return await hosts(resolver, "a.test")

    assert using({}, work, with_addresses(address))[0] == [address]


def test_aliases_are_followed_within_the_answer() -> None:
    chain = Reply([("a.test", CNAME, "b.test"), ("b.test", CNAME, "c.test"), ("c.test", A, "192.0.2.1")])
    script: Script = lambda _name, kind, _before: chain if kind == A else Reply(chain.records[:2])  # noqa: E731
    assert using({}, lambda resolver: hosts(resolver, "a.test"), script)[0] == ["192.0.2.1"]


def test_an_answer_too_long_for_udp_is_fetched_by_tcp() -> None:
    many = [f"192.0.2.{i}" for i in range(1, 101)]
    script: Script = lambda n, kind, _: Reply(found(n, kind, *many).records, truncated=kind == A)  # noqa: E731
    answer, server = using({}, lambda resolver: hosts(resolver, "a.test"), script)
    assert answer == many
    assert server.by_tcp == 1


def test_a_name_keeps_its_first_address_when_the_record_changes() -> None:
    async def work(resolver: MappedResolver) -> Any:
        return [await hosts(resolver, spelling) for spelling in ("a.test", "A.test.", "a.test")]

    script: Script = lambda name, kind, before: found(name, kind, "127.0.0.1" if before else "192.0.2.1")  # noqa: E731
    answers, server = using({}, work, script)
    assert answers == [["192.0.2.1"]] * 3
    assert server.asked == {("a.test", A): 1, ("a.test", AAAA): 1}


@pytest.mark.parametrize("rcode", [NXDOMAIN, NOERROR])
@pytest.mark.parametrize("soa", [True, False])
def test_a_name_without_addresses_is_missing_and_stays_so(rcode: int, soa: bool) -> None:
    async def work(resolver: MappedResolver) -> Any:
        return [await error_of(resolver, name) for name in ("a.test", "a.test.", "A.test")]

    errors, server = using({}, work, always(Reply(rcode=rcode, soa=soa)))
    assert all(name_is_missing(error) for error in errors)
    # Without a SOA record there is no proper negative answer (RFC 2308, 2), and one of NXDOMAIN is asked for again.
    assert set(server.asked.values()) == {2 if rcode == NXDOMAIN and not soa else 1}


@pytest.mark.parametrize("rcode", [SERVFAIL, FORMERR, REFUSED, NOTIMP])
def test_a_server_that_fails_is_asked_again_later(rcode: int) -> None:
    working = False

    async def work(resolver: MappedResolver) -> Any:
        nonlocal working
        error = await error_of(resolver, "a.test")
        working = True
        return error, await hosts(resolver, "a.test")

    def script(name: str, kind: int, _before: int) -> Reply:
        return found(name, kind, "192.0.2.1") if working else Reply(rcode=rcode)

    (error, answer), _ = using({}, work, script)
    assert error.errno == socket.EAI_AGAIN
    assert answer == ["192.0.2.1"]


def test_one_failure_is_made_good_within_the_same_lookup() -> None:
    script: Script = lambda n, kind, before: found(n, kind, "192.0.2.1") if before else Reply(rcode=SERVFAIL)  # noqa: E731
    assert using({}, lambda resolver: hosts(resolver, "a.test"), script)[0] == ["192.0.2.1"]


@pytest.mark.parametrize("failing", [A, AAAA])
def test_no_records_of_one_family_say_nothing_about_the_other(failing: int) -> None:
    def script(_name: str, kind: int, _before: int) -> Reply:
        return Reply(rcode=SERVFAIL) if kind == failing else Reply(delay_s=0.1)

    error, _ = using({}, lambda resolver: error_of(resolver, "a.test"), script)
    assert error.errno == socket.EAI_AGAIN


GARBAGE = [b"", b"\x81\x80", b"\x81\x80\0\1\0\1\0\0\0\0", b"\xff" * 60, b"\x81\x80\0\1\0\1\0\0\0\0" + b"\xc0\x0c" * 9]


@pytest.mark.parametrize("junk", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_no_answer_and_a_proper_one_after_it_counts(junk: bytes) -> None:
    script: Script = lambda n, kind, before: found(n, kind, "192.0.2.1") if before else junk  # noqa: E731
    assert using({}, lambda resolver: hosts(resolver, "a.test"), script)[0] == ["192.0.2.1"]


@pytest.mark.parametrize("junk", GARBAGE[3:], ids=range(3, len(GARBAGE)))
def test_nothing_but_garbage_is_a_passing_failure(junk: bytes) -> None:
    error, _ = using({}, lambda resolver: error_of(resolver, "a.test"), always(junk))
    assert error.errno == socket.EAI_AGAIN


def test_an_answer_to_another_question_is_not_taken() -> None:
    other = struct.pack("!5H", 0x8180, 1, 1, 0, 0) + wire_name("b.test") + struct.pack("!HH", A, 1)
    poison = other + record("b.test", A, "203.0.113.9")
    script: Script = lambda n, kind, before: found(n, kind, "192.0.2.1") if before else poison  # noqa: E731

    async def work(resolver: MappedResolver) -> Any:
        return await hosts(resolver, "a.test"), resolver.knows("b.test")

    assert using({}, work, script)[0] == (["192.0.2.1"], False)


def test_the_second_server_answers_where_the_first_is_silent() -> None:
    async def work(resolver: MappedResolver) -> Any:
        begun = time.monotonic()
        first = await hosts(resolver, "a.test")
        between = time.monotonic()
        rest = await asyncio.gather(*(hosts(resolver, f"{i}.test") for i in range(20)))
        return [first, *rest], between - begun, time.monotonic() - between

    (answers, first_s, rest_s), silent, _ = using({}, work, always(None), with_addresses("192.0.2.1"))
    assert answers == [["192.0.2.1"]] * 21
    assert first_s < 1.0
    assert rest_s < first_s  # the silent one is not tried first again
    assert silent.names == ["a.test"]


def test_two_silent_servers_are_given_up_before_the_default_connect_s() -> None:
    begun = time.monotonic()
    error, *servers = using({}, lambda resolver: error_of(resolver, "a.test"), always(None), always(None))
    assert error.errno == socket.EAI_AGAIN
    assert time.monotonic() - begun < 5.0
    assert all(server.asked["a.test", A] >= 3 for server in servers)


@pytest.mark.parametrize("servers", range(1, 30))
def test_every_server_is_asked_within_the_time_as_often_as_it_allows(servers: int) -> None:
    wait_s, tries = module._patience(servers)
    assert wait_s >= 0.25
    assert tries >= 1
    assert servers * 0.25 * (2**tries - 1) >= GIVE_UP_S > servers * 0.25 * (2 ** (tries - 1) - 1)
    assert 3 * servers * wait_s < GIVE_UP_S or servers > 2


def test_a_name_that_is_slow_to_find_is_not_lost_because_others_were_quick() -> None:
    since: dict[str, float] = {}

    async def work(resolver: MappedResolver) -> Any:
        await asyncio.gather(*(hosts(resolver, f"{i}.test") for i in range(20)))
        return await asyncio.gather(hosts(resolver, "far.test"), hosts(resolver, "searched.test"))

    def script(name: str, kind: int, _before: int) -> Reply:
        """Each answer for far.test takes 0.8 s; searched.test is there 2.5 s after it was first asked for."""
        wait_s = since.setdefault(name, time.monotonic()) + 2.5 - time.monotonic()
        delay_s = {"far.test": 0.8, "searched.test": max(0.0, wait_s)}.get(name, 0.0)
        return Reply(found(name, kind, "192.0.2.1").records, delay_s=delay_s)

    assert using({}, work, script)[0] == [["192.0.2.1"]] * 2


def test_a_port_where_nobody_listens_is_a_passing_failure() -> None:
    async def main() -> Any:
        resolver = MappedResolver({}, ["127.0.0.1:1"])
        try:
            return await error_of(resolver, "a.test")
        finally:
            await resolver.close()

    assert asyncio.run(main()).errno == socket.EAI_AGAIN


# -- what is sent ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "a..test", "a.test..", ".a.test", "a b.test", "a\0b", "\u00e9.test", "a/b.test", "*.test"),
        *("x" * 64 + ".test", "a." * 126 + "ab"),
        *("2130706433", "0x7f.1", "0177.0.0.1", "127.1", "a.0x7f", "1.2.3.4.5", "a.7"),
    ],
)
def test_what_is_no_host_name_is_missing_and_never_sent(name: str) -> None:
    async def work(resolver: MappedResolver) -> Any:
        resolver.prefetch(name)
        return await error_of(resolver, name)

    error, server = using({}, work, with_addresses("192.0.2.1"))
    assert name_is_missing(error)
    assert not server.asked


@pytest.mark.parametrize(
    "name",
    [
        *("a_b.test", "_a.test", "-a.test", "a-.test", "xn--a.test", "xn--.test", "r3---sn.test", "com", "7.a7"),
        *("x" * 63 + ".test", "a." * 125 + "abc"),
    ],
)
def test_names_that_the_web_uses_and_codecs_refuse_are_asked_for_as_they_are(name: str) -> None:
    answer, server = using({}, lambda resolver: hosts(resolver, name), with_addresses("192.0.2.1"))
    assert answer == ["192.0.2.1"]
    assert server.names == [name]


@pytest.mark.parametrize("address", ["192.0.2.1", "::1", "2001:db8::1"])
def test_an_address_is_its_own_answer(address: str) -> None:
    answer, server = using({}, lambda resolver: hosts(resolver, address), always(None))
    assert answer == [address]
    assert not server.asked


def test_search_domains_and_host_aliases_are_not_applied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "aliases").write_text("single other.test\n")
    monkeypatch.setenv("LOCALDOMAIN", "corp.local")  # c-ares takes search domains from it, over resolv.conf
    monkeypatch.setenv("HOSTALIASES", str(tmp_path / "aliases"))

    async def work(resolver: MappedResolver) -> Any:
        return [await error_of(resolver, name) for name in ("example.test", "single")]

    errors, server = using({}, work, always(Reply(rcode=NXDOMAIN)))
    assert all(name_is_missing(error) for error in errors)
    assert server.names == ["example.test", "single"]


def test_localhost_and_the_hosts_file_come_before_the_name_servers() -> None:
    lines = [line.partition("#")[0].split() for line in Path("/etc/hosts").read_text().splitlines()]
    named = [(line[0], name) for line in lines for name in line[1:] if line and ":" not in line[0]]

    async def work(resolver: MappedResolver) -> Any:
        assert (await hosts(resolver, "localhost"))[0] == "127.0.0.1"
        return [address in await hosts(resolver, name) for address, name in named]

    answers, server = using({}, work, always(None))
    assert all(answers)
    assert not server.asked


FRESH = """
import asyncio
from stages.download.resolver import MappedResolver

async def main():
    resolver = MappedResolver({})
    print([entry["host"] for entry in await resolver.resolve("localhost", 80)][0])
    await resolver.close()

asyncio.run(main())
"""


def test_a_fresh_process_uses_the_settings_of_this_machine_and_ends_without_a_word() -> None:
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", FRESH]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("127.0.0.1\n", "")


# -- many at once ------------------------------------------------------------------------------------------------


def test_five_hundred_names_at_once_are_found_with_so_many_under_way_and_no_more() -> None:
    async def work(resolver: MappedResolver) -> Any:
        return await asyncio.gather(*(hosts(resolver, f"h{i}.test") for i in range(500)))

    def script(name: str, kind: int, _before: int) -> Reply:
        number = int(name[1:].partition(".")[0])
        return Reply(found(name, kind, f"192.0.{number // 256}.{number % 256}").records, delay_s=0.05)

    answers, server = using({}, work, script)
    assert answers == [[f"192.0.{i // 256}.{i % 256}"] for i in range(500)]
    assert IN_FLIGHT // 2 < server.peak <= IN_FLIGHT


def test_requests_for_one_name_share_one_lookup() -> None:
    async def work(resolver: MappedResolver) -> Any:
        resolver.prefetch("a.test")
        names = ["a.test", "A.test", "a.test."] * 10
        return await asyncio.gather(*(hosts(resolver, name) for name in names))

    slow: Script = lambda n, kind, _: Reply(found(n, kind, "192.0.2.1").records, delay_s=0.05)  # noqa: E731
    answers, server = using({}, work, slow)
    assert answers == [["192.0.2.1"]] * 30
    assert server.asked == {("a.test", A): 1, ("a.test", AAAA): 1}


def test_one_who_gives_up_does_not_take_the_answer_from_the_others() -> None:
    async def work(resolver: MappedResolver) -> Any:
        impatient = asyncio.create_task(hosts(resolver, "a.test"))
        patient = asyncio.create_task(hosts(resolver, "a.test"))
        await asyncio.sleep(0.02)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        return await patient

    slow: Script = lambda n, kind, _: Reply(found(n, kind, "192.0.2.1").records, delay_s=0.1)  # noqa: E731
    answer, server = using({}, work, slow)
    assert answer == ["192.0.2.1"]
    assert server.asked["a.test", A] == 1


def test_a_lookup_that_everyone_gave_up_is_found_by_the_next() -> None:
    async def work(resolver: MappedResolver) -> Any:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(hosts(resolver, "a.test"), 0.02)
        return await hosts(resolver, "a.test")

    slow: Script = lambda n, kind, _: Reply(found(n, kind, "192.0.2.1").records, delay_s=0.1)  # noqa: E731
    answer, server = using({}, work, slow)
    assert answer == ["192.0.2.1"]
    assert server.asked["a.test", A] == 1


def test_prefetching_leaves_places_free_and_its_errors_are_nobodys() -> None:
    async def work(resolver: MappedResolver) -> Any:
        for i in range(2 * IN_FLIGHT):
            resolver.prefetch(f"{i}.test")
        await asyncio.sleep(0.05)
        return await hosts(resolver, "wanted.test")

    def script(name: str, kind: int, _before: int) -> Reply | None:
        return found(name, kind, "192.0.2.1") if name == "wanted.test" else None

    answer, server = using({}, work, script)
    gc.collect()
    assert answer == ["192.0.2.1"]
    assert len(server.names) == PREFETCHED + 1


def test_a_prefetched_name_is_known() -> None:
    async def work(resolver: MappedResolver) -> Any:
        resolver.prefetch("A.test.")
        for _ in range(200):
            if resolver.knows("a.test"):
                return await hosts(resolver, "a.test")
            await asyncio.sleep(0.01)
        raise AssertionError("never found")

    assert using({}, work, with_addresses("192.0.2.1"))[0] == ["192.0.2.1"]


# -- the end -----------------------------------------------------------------------------------------------------


def test_closing_under_way_fails_whoever_waits_and_leaves_nothing_open() -> None:
    async def main() -> None:
        async with NameServer(always(None)).up() as server:
            before = open_handles()
            resolver = MappedResolver({}, [server.address])
            waiting = [asyncio.create_task(error_of(resolver, f"{i}.test")) for i in range(IN_FLIGHT + 20)]
            await asyncio.sleep(0.05)
            assert len(open_handles()) > len(before)
            begun = time.monotonic()
            await resolver.close()
            errors = await asyncio.gather(*waiting)
            assert time.monotonic() - begun < 1.0
            assert {error.errno for error in errors} == {socket.EAI_AGAIN}
            assert (await error_of(resolver, "0.test")).errno == socket.EAI_AGAIN
            resolver.prefetch("1.test")
            await resolver.close()
            assert asyncio.all_tasks() == {asyncio.current_task()}
            for _ in range(100):  # c-ares closes its handles in a thread of its own
                if open_handles() <= before:
                    return
                await asyncio.sleep(0.02)
            assert open_handles() <= before

    asyncio.run(main())


def test_a_machine_without_handles_left_is_at_fault_and_not_the_name() -> None:
    async def main() -> OSError:
        resolver = MappedResolver({}, ["192.0.2.53"])
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            with pytest.raises(OSError) as failed:
                await resolver.resolve("a.test", 80)
            return failed.value
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            await resolver.close()

    error = asyncio.run(main())
    assert error.errno == errno.EMFILE
    assert not isinstance(error, socket.gaierror)


def test_the_next_call_asks_anew() -> None:
    for address in ("192.0.2.1", "192.0.2.2"):
        assert using({}, lambda resolver: hosts(resolver, "a.test"), with_addresses(address))[0] == [address]
