"""A store that moves on to another one now and then, and is copied to a third again and again, beside the naive
reference: whatever is done in between, they say the same."""

import asyncio
import itertools
import os
import sys
import traceback
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException
from hypothesis.stateful import rule, run_state_machine_as_test

from comity_server.limits import Limits
from comity_server.model import Fork, MakeCheckpoint, Put, RequestId, Transaction
from comity_server.stores.copy import ends
from comity_server.stores.copy.run import copy
from comity_server.stores.protocol import Store
from comity_server.stores.url import open_store
from tests.contract.test_model import NAMES, Machine, namespaces
from tests.redis_servers import RedisServer

SOAK = os.environ.get("COMITY_SOAK") == "1"
SETTINGS = settings(
    max_examples=500 if SOAK else 5,
    stateful_step_count=80 if SOAK else 40,
    derandomize=not SOAK,
    database=None,
    deadline=None,
    phases=[Phase.generate],  # what times decide of a run differs in the next one, of which no shrinking makes sense
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


class Moving:
    """A store, its URL, and those that it moves to and that it is copied to."""

    is_durable = False  # the machine does not open it anew by itself
    store: Store

    def __init__(self, urls: Iterator[str]) -> None:
        self._urls = urls

    async def begin(self) -> None:
        """With stores that have nothing."""
        self.url, self.mirror_url = next(self._urls), next(self._urls)
        await self.open()

    async def open(self) -> None:
        self.store = open_store(self.url, Limits())
        await self.store.open()

    async def move(self) -> None:
        """Go on in another store."""
        await self.store.close()
        target = next(self._urls)
        results = await copy(ends.reader(self.url), target)
        assert {result.ending for result in results} <= {"copied", "counted"}, results
        self.url = target
        await self.open()

    async def mirror(self) -> Store:
        """Bring the other store up to date, and open it."""
        await self.store.close()
        try:
            results = await copy(ends.reader(self.url), self.mirror_url, overwrite=True)
            assert all(result.is_equal for result in results), results
        finally:
            await self.open()
        mirror = open_store(self.mirror_url, Limits())
        await mirror.open()
        return mirror


class MovingMachine(Machine):
    opened: Moving  # type: ignore[assignment]  # which has what the machine uses

    @rule()
    def move(self) -> None:
        before = [self.run(self.space(name).position()) for name in NAMES]
        assert self.run(self.opened.move()) is None
        after = [self.run(self.space(name).position()) for name in NAMES]
        assert [known[:2] for known in after] == [known[:2] for known in before]  # type: ignore[index]
        self.everything_agrees()

    @rule()
    def mirror(self) -> None:
        mirror = self.run(self.opened.mirror())
        assert not isinstance(mirror, type), mirror
        own, self.opened.store = self.opened.store, mirror
        try:
            self.everything_agrees()
            self.newest_states_agree()
        finally:
            self.run(mirror.close())
            self.opened.store = own

    @rule(on=namespaces, steps=st.lists(st.sampled_from(["put", "delete", "mark", "fork", "compact"]), max_size=6))
    def go_on_after_a_copy(self, on: str, steps: list[str]) -> None:
        """What the other store has it goes on from."""
        self.mirror()
        on = self.living(on)
        for number, step in enumerate(steps):
            free = [name for name in NAMES if not self.reference(name).exists]
            match step:
                case "put":
                    request = RequestId("c1", next(self.sequences["c1"]))
                    self.commit(on, self.name_it(on, Transaction(then=[Put("a", b"%d" % number)]), request))
                case "delete":
                    self.delete(on, "a")
                case "mark":
                    self.commit(on, MakeCheckpoint(name=f"mark-{number}"))
                case "fork" if free:
                    self.commit(free[0], Fork(parent=self.full(on)))
                case "compact":
                    self.compact(on, len(steps))
        self.mirror()

    def teardown(self) -> None:
        error = sys.exception()
        try:
            if error is not None:
                if isinstance(error, Exception) and not isinstance(error, HypothesisException):
                    traceback.print_exception(error)  # if it does not come again, Hypothesis tells no more than that
                return
            self.mirror()
            self.move()
            super().teardown()
        finally:
            self.run(self.opened.store.close())


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.mark.soak
@pytest.mark.timeout(0 if SOAK else 600)
@pytest.mark.parametrize(
    "kinds", [("sqlite", "sqlite"), ("sqlite", "redis"), ("redis", "sqlite"), ("redis", "redis")], ids="-".join
)
def test_copies_do_what_the_reference_does(
    kinds: tuple[str, str], redis_server: RedisServer, tmp_path: Path, runner: asyncio.Runner
) -> None:
    new: dict[str, Callable[[], str]] = {
        "sqlite": lambda: f"sqlite:{tmp_path / uuid.uuid4().hex}.db",
        "redis": lambda: f"{redis_server.url}?prefix=t-{uuid.uuid4().hex}",
    }
    urls = (new[kind]() for kind in itertools.cycle(kinds))

    def machine() -> MovingMachine:
        moving = Moving(urls)
        runner.run(moving.begin())
        return MovingMachine(runner, moving)  # type: ignore[arg-type]

    run_state_machine_as_test(cast(type[Machine], machine), settings=SETTINGS)
