"""Calls beyond a rate: what there is time for is done, and the rest says why not, and that nothing was done."""

import asyncio

import comity
from tests import servers


async def test_of_many_at_once_some_are_done_and_the_others_say_why_not() -> None:
    with servers.start("--rate-principal", "5") as server:
        async with comity.connect(server.address, timeout=4) as state:
            ends = await asyncio.gather(*(state.put(f"{n}", n) for n in range(40)), return_exceptions=True)
            failed = {f"{n}": end for n, end in enumerate(ends) if isinstance(end, Exception)}
            assert 1 <= 40 - len(failed) < 40
            assert {type(each) for each in failed.values()} <= {comity.RateLimited, comity.DeadlineExceeded}
            assert all("has 5 operations a second" in str(each) for each in failed.values())
            refused = {key for key, each in failed.items() if isinstance(each, comity.RateLimited)}
            assert refused
            await state.put("last", 1, timeout=60)
            there = {entry.key async for entry in state.list(timeout=60)}
        assert not there & refused
