"""Names: the mapping in front, what is sent to name servers behind it, many at once, and the end."""

import asyncio
import contextlib
import errno
import gc
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stages.download.resolver import IN_FLIGHT, PREFETCHED, MappedResolver, name_is_missing
from tests.stages.download.name_server import (
    AAAA,
    NXDOMAIN,
    A,
    NameServer,
    Reply,
    Script,
    always,
    error_of,
    found,
    hosts,
    using,
    with_addresses,
)

MAPPING = {
    ".rs5m.test": "127.0.0.1:8080",
    "nowhere.rs5m.test": "",
    ".deep.rs5m.test": "127.0.0.2",
    "six.test": "[::1]:81",
    "Plain6.test": "::1",
}


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
