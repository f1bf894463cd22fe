"""Names: the mapping in front, the system behind, remembered answers."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from stages.download import resolver as module
from stages.download.resolver import MappedResolver, name_is_missing

MAPPING = {
    ".rs5m.test": "127.0.0.1:8080",
    "nowhere.rs5m.test": "",
    ".deep.rs5m.test": "127.0.0.2",
    "six.test": "[::1]:81",
    "Plain6.test": "::1",
}


def using(mapping: dict[str, str], work: Callable[[MappedResolver], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        resolver = MappedResolver(mapping)
        try:
            return await work(resolver)
        finally:
            await resolver.close()

    return asyncio.run(main())


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
    found = using(MAPPING, lambda resolver: resolver.resolve(host, 443))
    assert [(entry["host"], entry["port"]) for entry in found] == [(address, port)]


def test_an_empty_value_means_that_the_name_does_not_exist() -> None:
    with pytest.raises(socket.gaierror) as missing:
        using(MAPPING, lambda resolver: resolver.resolve("nowhere.rs5m.test", 80))
    assert name_is_missing(missing.value)


@pytest.mark.parametrize("value", ["localhost", "127.0.0.1:http", "[::1", "1.2.3.4.5"])
def test_a_value_that_is_no_address_is_refused_with_its_name(value: str) -> None:
    with pytest.raises(ValueError, match=r"'a\.test'.*address:port"):
        MappedResolver({"a.test": value})


def test_the_system_is_asked_once_for_a_name_however_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def lookup(name: str) -> list[str]:
        asked.append(name)
        if name.startswith("missing"):
            raise socket.gaierror(socket.EAI_NONAME, "no")
        return ["192.0.2.1", "2001:db8::1"]

    monkeypatch.setattr(module, "_getaddrinfo", lookup)

    async def work(resolver: MappedResolver) -> list[Any]:
        names = ["a.test", "a.test", "A.test.", "missing.test", "missing.test"]
        first = await asyncio.gather(*(resolver.resolve(name, 80) for name in names), return_exceptions=True)
        return [*first, *await asyncio.gather(*(resolver.resolve(n) for n in names), return_exceptions=True)]

    answers = using({}, work)
    assert sorted(asked) == ["a.test", "missing.test"]
    assert [entry["host"] for entry in answers[0]] == ["192.0.2.1", "2001:db8::1"]
    assert all(name_is_missing(answer) for answer in (*answers[3:5], *answers[8:]))


def test_a_lookup_that_failed_for_the_moment_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    results: list[Any] = [socket.gaierror(socket.EAI_AGAIN, "later"), ["192.0.2.1"]]

    def lookup(_name: str) -> list[str]:
        result = results.pop(0)
        if isinstance(result, OSError):
            raise result
        return list(result)

    monkeypatch.setattr(module, "_getaddrinfo", lookup)

    async def work(resolver: MappedResolver) -> str:
        with pytest.raises(socket.gaierror) as failed:
            await resolver.resolve("a.test", 80)
        assert not name_is_missing(failed.value)
        return (await resolver.resolve("a.test", 80))[0]["host"]

    assert using({}, work) == "192.0.2.1"


def test_one_who_gives_up_does_not_take_the_answer_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    gate = threading.Event()

    def lookup(_name: str) -> list[str]:
        gate.wait(5)
        return ["192.0.2.1"]

    monkeypatch.setattr(module, "_getaddrinfo", lookup)

    async def work(resolver: MappedResolver) -> str:
        impatient = asyncio.create_task(resolver.resolve("a.test", 80))
        patient = asyncio.create_task(resolver.resolve("a.test", 80))
        await asyncio.sleep(0.01)
        impatient.cancel()
        gate.set()
        return (await patient)[0]["host"]

    assert using({}, work) == "192.0.2.1"


@pytest.mark.parametrize("name", ["x" * 70 + ".test", "a\0b", "\u00e9.test"])
def test_names_the_system_cannot_even_be_asked_for_do_not_exist(name: str) -> None:
    with pytest.raises(OSError) as missing:
        using({}, lambda resolver: resolver.resolve(name, 80))
    assert isinstance(missing.value, socket.gaierror)
