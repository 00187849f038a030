import asyncio

import pytest
import pytest_asyncio

from router.dispatch.wakes import Wakes
from tests.router.dispatch.loop_time import LoopTime, settle

WRITE_S = 0.004


class Reader:
    """Counts how often it is woken; each time it computes for `WRITE_S` in its own turn, as a writer does."""

    def __init__(self, world: "World") -> None:
        self.num_wakes = 0
        self._world = world

    def notify(self) -> None:
        self.num_wakes += 1
        asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        self._world.busy_s += WRITE_S


class World:
    """Rounds, with all that they measure in the test's hand."""

    def __init__(self) -> None:
        self.busy_s = 0.0
        self.time = LoopTime(asyncio.get_running_loop())
        self.wakes = Wakes(lambda: self.busy_s)

    def readers(self, number: int) -> list[Reader]:
        return [Reader(self) for _ in range(number)]

    async def tell(self, *readers: Reader) -> list[int]:
        """Says that there are news; returns how often each has been woken by now."""
        for reader in readers:
            self.wakes.add(reader)
        await settle()
        return [reader.num_wakes for reader in readers]


@pytest_asyncio.fixture
async def world() -> World:
    return World()


async def test_first_news_are_told_at_once(world: World) -> None:
    assert await world.tell(*world.readers(3)) == [1, 1, 1]


async def test_news_of_one_round_are_told_once(world: World) -> None:
    (reader,) = world.readers(1)
    assert await world.tell(reader, reader, reader) == [1, 1, 1]


async def test_after_a_round_news_wait_as_long_as_it_took(world: World) -> None:
    a, b = world.readers(2)
    assert await world.tell(a, b) == [1, 1]
    assert await world.tell(a) == [1]
    await world.time.advance(2 * WRITE_S - 0.001)
    assert await world.tell(a, b) == [1, 1]
    await world.time.advance(0.001)
    assert (a.num_wakes, b.num_wakes) == (2, 2)


async def test_round_without_news_after_it_leaves_the_next_ones_free(world: World) -> None:
    (reader,) = world.readers(1)
    await world.tell(reader)
    await world.time.advance(WRITE_S)
    assert await world.tell(reader) == [2]


class Broken(Reader):
    """A reader that cannot be woken."""

    def notify(self) -> None:
        raise RuntimeError("it is broken")


async def test_reader_that_cannot_be_woken_keeps_nothing_from_others(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    (reader,) = world.readers(1)
    for num_wakes in (1, 2):
        assert await world.tell(Broken(world), reader) == [0, num_wakes]
        await world.time.advance(WRITE_S)
    assert caplog.text.count("it is broken") >= 2


async def test_news_that_come_while_readers_have_their_turn_are_told_in_the_next_round(world: World) -> None:
    early, late = world.readers(2)
    world.wakes.add(early)
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # the round has begun
    assert early.num_wakes == 1
    assert await world.tell(late) == [0]
    await world.time.advance(WRITE_S)
    assert late.num_wakes == 1
