"""What name servers answer, or do not: real ones on loopback."""

import asyncio
import contextlib
import socket
import struct
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.download import resolver as module
from stages.download.resolver import GIVE_UP_S, MappedResolver, name_is_missing
from tests.stages.download.name_server import (
    AAAA,
    CNAME,
    FORMERR,
    NOERROR,
    NOTIMP,
    NXDOMAIN,
    REFUSED,
    SERVFAIL,
    A,
    Reply,
    Script,
    always,
    error_of,
    found,
    hosts,
    record,
    using,
    wire_name,
    with_addresses,
)


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
