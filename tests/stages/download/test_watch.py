"""Who gives its place to another, and when; the deadlines themselves are tested with the client."""

import asyncio
from dataclasses import replace

from stages.download.answers import Network
from stages.download.watch import STALL_S, TICK_S, Timing, Watch

NETWORK = Network(4, 4, 5.0, 10.0, 30.0, 1, 0.01, {}, "rs5m-build-test")


def stalls(answers: int, took_s: float = 0.0) -> dict[str, float]:
    """After how long a server that has answered before, and one that was never heard from, stall.

    Args:
        answers: How many requests are answered before.
        took_s: How long each of them takes.
    """
    found: dict[str, float] = {}

    async def main() -> None:
        loop = asyncio.get_running_loop()

        both = asyncio.Event()

        def note(timing: Timing) -> bool:
            found[timing.host] = loop.time() - timing.begun_s
            if len(found) == 2:
                both.set()
            return True

        watch = Watch(NETWORK, note)
        for _ in range(answers):
            timing = watch.begin("quick", met=True)
            timing.begun_s -= took_s
            timing.heard_s = loop.time()
            watch.end(timing)
        for host, met in (("met", True), ("unknown", False)):
            watch.begin(host, met=met)
        await both.wait()
        watch.close()

    asyncio.run(main())
    return found


def test_as_long_as_nothing_is_known_of_this_network_everyone_has_a_second() -> None:
    found = stalls(0)
    assert found.keys() == {"met", "unknown"}
    assert min(found.values()) > STALL_S


def test_where_answers_are_quick_a_server_that_was_never_heard_from_has_less_time() -> None:
    found = stalls(200, took_s=0.01)
    assert found["met"] > STALL_S
    assert found["unknown"] < found["met"] / 2


def test_where_answers_are_slow_it_has_more_but_no_more_than_others() -> None:
    found = stalls(200, took_s=0.2)
    assert 2 * 0.2 * 0.9 < found["unknown"] <= found["met"]
    assert stalls(200, took_s=20.0)["unknown"] > STALL_S


def test_a_stall_is_told_again_until_it_is_taken() -> None:
    told = 0

    async def main() -> None:
        taken = asyncio.Event()

        def refuse(_: Timing) -> bool:
            nonlocal told
            told += 1
            if told == 3:
                taken.set()
            return told == 3

        watch = Watch(replace(NETWORK, read_s=100.0), refuse)
        timing = watch.begin("slow", met=True)
        timing.begun_s -= 2 * STALL_S
        await taken.wait()
        await asyncio.sleep(3 * TICK_S)
        watch.close()

    asyncio.run(main())
    assert told == 3
