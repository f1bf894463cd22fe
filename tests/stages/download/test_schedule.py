"""Whose turn it is: every item once, caps held, nobody starves, held hosts rest."""

import asyncio
import collections

from hypothesis import given, settings
from hypothesis import strategies as st

from stages.download.schedule import Schedule


@settings(max_examples=60, deadline=None)
@given(
    hosts=st.lists(st.integers(0, 6), max_size=40),
    workers=st.integers(1, 5),
    per_host=st.integers(1, 3),
    returns=st.sets(st.integers(0, 39)),
    holds=st.sets(st.integers(0, 39), max_size=3),
)
def test_every_item_is_worked_on_within_the_caps(
    hosts: list[int], workers: int, per_host: int, returns: set[int], holds: set[int]
) -> None:
    """Items in `returns` come back once for another host, as a redirect does; `holds` make their host rest."""
    running: collections.Counter[str] = collections.Counter()
    finished: collections.Counter[int] = collections.Counter()

    async def main() -> None:
        schedule: Schedule[tuple[str, int]] = Schedule(workers, per_host, len(hosts))
        for number, host in enumerate(hosts):
            schedule.put(f"h{host}", (f"h{host}", number))
        moved: set[int] = set()

        async def work() -> None:
            while (item := await schedule.take()) is not None:
                host, number = item
                running[host] += 1
                assert running[host] <= per_host
                await asyncio.sleep(0)
                running[host] -= 1
                if number in holds:
                    schedule.hold(host, 0.002)
                if number in returns and number not in moved:
                    moved.add(number)
                    schedule.put("other", ("other", number), first=True)
                else:
                    finished[number] += 1
                    schedule.finish()
                schedule.done(host)

        await asyncio.wait_for(asyncio.gather(*(work() for _ in range(workers))), 5)

    asyncio.run(main())
    assert finished == collections.Counter(range(len(hosts)))


def order_of(schedule: Schedule[str], count: int) -> list[str]:
    async def main() -> list[str]:
        taken = []
        for _ in range(count):
            item = await schedule.take()
            assert item is not None
            taken.append(item)
        return taken

    return asyncio.run(main())


def test_hosts_take_turns() -> None:
    schedule: Schedule[str] = Schedule(window=3, per_host=2, items=6)
    for item in ("a1", "a2", "a3", "b1", "b2", "c1"):
        schedule.put(item[0], item)
        schedule.met(item[0])
    assert order_of(schedule, 5) == ["a1", "b1", "c1", "a2", "b2"]


def test_only_a_window_of_hosts_is_worked_on_until_one_has_nothing_left() -> None:
    schedule: Schedule[str] = Schedule(window=2, per_host=2, items=6)
    for item in ("a1", "a2", "b1", "b2", "c1", "c2"):
        schedule.put(item[0], item)
        schedule.met(item[0])
    assert order_of(schedule, 3) == ["a1", "b1", "a2"]
    schedule.done("a")
    schedule.done("a")
    assert order_of(schedule, 3) == ["c1", "b2", "c2"]
    assert schedule.is_last("c")


def test_a_host_that_rests_makes_room() -> None:
    async def main() -> list[str | None]:
        schedule: Schedule[str] = Schedule(window=1, per_host=1, items=3)
        for item in ("a1", "a2", "b1"):
            schedule.put(item[0], item)
        taken = [await schedule.take()]
        schedule.hold("a", 0.01)
        schedule.done("a")
        taken.append(await schedule.take())
        schedule.done("b")
        taken.append(await asyncio.wait_for(schedule.take(), 1))
        return taken

    assert asyncio.run(main()) == ["a1", "b1", "a2"]


def test_a_host_never_heard_from_is_asked_one_item_at_a_time() -> None:
    async def main() -> list[str | None]:
        schedule: Schedule[str] = Schedule(window=2, per_host=2, items=4)
        for item in ("a1", "a2", "a3", "b1"):
            schedule.put(item[0], item)
        taken = [await schedule.take(), await schedule.take()]
        schedule.met("a")
        taken.append(await schedule.take())
        schedule.done("a")
        taken.append(await schedule.take())
        return taken

    assert asyncio.run(main()) == ["a1", "b1", "a2", "a3"]


def test_a_host_that_stalls_gives_its_room_to_another() -> None:
    async def main() -> list[str | None]:
        schedule: Schedule[str] = Schedule(window=1, per_host=1, items=3)
        for item in ("a1", "a2", "b1"):
            schedule.put(item[0], item)
        taken = [await schedule.take()]
        schedule.set_aside("a")
        taken.append(await asyncio.wait_for(schedule.take(), 1))
        return taken

    assert asyncio.run(main()) == ["a1", "b1"]


def test_items_of_a_host_are_kept_apart() -> None:
    async def main() -> float:
        schedule: Schedule[str] = Schedule(window=1, per_host=4, items=3, spacing_s=0.05)
        for item in ("a1", "a2", "a3"):
            schedule.put("a", item)
            schedule.met("a")
        begun = asyncio.get_running_loop().time()
        for _ in range(3):
            await asyncio.wait_for(schedule.take(), 1)
        return asyncio.get_running_loop().time() - begun

    assert asyncio.run(main()) >= 0.1
