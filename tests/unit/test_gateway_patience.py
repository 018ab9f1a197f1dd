import asyncio

import pytest

from festina.gateway.patience import Patience

STALL_S = 0.02


async def nothing(message):
    """A client that reads at once."""


async def never(message):
    await asyncio.Event().wait()


def test_a_stream_may_be_silent_longer_than_a_client_may_not_read():
    async def run():
        async with Patience(nothing, STALL_S) as patience:
            for _ in range(3):
                await asyncio.sleep(3 * STALL_S)
                await patience.send({})
        return "ended"

    assert asyncio.run(run()) == "ended"


def test_a_client_that_stops_reading_late_is_cut_off():
    async def run():
        reads = [nothing, nothing, never]

        async def send(message):
            await reads.pop(0)(message)

        async with Patience(send, STALL_S) as patience:
            for _ in range(3):
                await asyncio.sleep(1.5 * STALL_S)
                await patience.send({})

    with pytest.raises(TimeoutError):
        asyncio.run(run())


def test_many_slow_sends_within_the_bound_are_not_added_up():
    async def run():
        async def slow(message):
            await asyncio.sleep(STALL_S / 4)

        async with Patience(slow, 4 * STALL_S) as patience:
            for _ in range(40):
                await patience.send({})
        return "ended"

    assert asyncio.run(run()) == "ended"


def test_an_end_from_outside_is_no_timeout_and_leaves_no_timer():
    async def run():
        task = asyncio.create_task(hold())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def hold():
        async with Patience(never, 3600.0) as patience:
            await patience.send({})

    asyncio.run(run())


def test_what_the_client_raises_comes_through():
    async def run():
        async def broken(message):
            raise ConnectionResetError("gone")

        async with Patience(broken, STALL_S) as patience:
            await patience.send({})

    with pytest.raises(ConnectionResetError):
        asyncio.run(run())
