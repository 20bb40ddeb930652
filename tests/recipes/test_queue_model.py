"""A queue does what a naive one would, whatever is done in which order."""

import uuid
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comity import LeaseLost, sync
from comity.sync.recipes import Item, Queue, QueueSize
from tests.servers import Server

TRIES = 2
WHICH = st.integers(0, 5)
STEPS = st.one_of(
    st.tuples(st.just("put"), st.integers(-1, 1)),
    st.tuples(st.sampled_from(["claim", "claim", "requeue_all", "purge"]), st.just(0)),
    st.tuples(st.sampled_from(["ack", "nack", "give_back", "lose", "late", "requeue"]), WHICH),
)


@dataclass
class Known:
    """An item as the naive queue has it."""

    id: str
    order: tuple[int, int]
    value: int
    tries: int = 0
    claimed: Item | None = None


class Model:
    """A naive queue beside a real one."""

    def __init__(self, client: sync.Client) -> None:
        self.client = client
        self.queue = Queue(client, uuid.uuid4().hex, tries=TRIES)
        self.waiting: list[Known] = []
        self.dead: list[Known] = []
        self.lost: list[Item] = []
        self.put_so_far = 0

    def put(self, priority: int) -> None:
        self.put_so_far += 1
        id = self.queue.put(self.put_so_far, priority)
        self.waiting.append(Known(id, (-priority, self.put_so_far), self.put_so_far))
        self.waiting.sort(key=lambda known: known.order)

    def claim(self, _: int) -> None:
        expected = None
        for known in [known for known in self.waiting if known.claimed is None]:
            if known.tries < TRIES:
                expected = known
                break
            self._bury(known)
        item = self.queue.try_get()
        if expected is None:
            assert item is None
            return
        assert item is not None
        expected.tries += 1
        expected.claimed = item
        assert (item.id, item.value, item.tries) == (expected.id, expected.value, expected.tries)

    def ack(self, which: int) -> None:
        if (found := self._claimed(which)) is not None:
            known, item = found
            item.ack(lambda tx: tx.put("acknowledged", known.id))
            self.waiting.remove(known)

    def nack(self, which: int) -> None:
        if (found := self._claimed(which)) is not None:
            known, item = found
            item.nack()
            known.claimed = None
            if known.tries >= TRIES:
                self._bury(known)

    def give_back(self, which: int) -> None:
        if (found := self._claimed(which)) is not None:
            known, item = found
            item.nack(counts=False)
            known.claimed = None
            known.tries -= 1

    def lose(self, which: int) -> None:
        if (found := self._claimed(which)) is not None:
            known, item = found
            self.client.revoke_lease(item.lease.id)
            known.claimed = None
            self.lost.append(item)

    def late(self, which: int) -> None:
        for item in self.lost:
            with pytest.raises(LeaseLost):
                item.ack(lambda tx: tx.put("late", 1)) if which % 2 else item.nack()

    def requeue(self, which: int) -> None:
        if which < len(self.dead):
            known = self.dead[which]
            assert self.queue.requeue(known.id) == 1
            self._revive([known])

    def requeue_all(self, _: int) -> None:
        assert self.queue.requeue() == len(self.dead)
        self._revive(list(self.dead))

    def purge(self, _: int) -> None:
        assert self.queue.purge() == len(self.dead)
        self.dead.clear()

    def check(self) -> None:
        claimed = sum(known.claimed is not None for known in self.waiting)
        assert self.queue.size() == QueueSize(len(self.waiting) - claimed, claimed, len(self.dead))
        assert [letter.id for letter in self.queue.dead()] == [known.id for known in self.dead]
        assert self.client.get("late") is None

    def _claimed(self, which: int) -> tuple[Known, Item] | None:
        claimed = [(known, known.claimed) for known in self.waiting if known.claimed is not None]
        return claimed[which] if which < len(claimed) else None

    def _bury(self, known: Known) -> None:
        self.waiting.remove(known)
        self.dead.append(known)
        self.dead.sort(key=lambda known: known.order)

    def _revive(self, known: list[Known]) -> None:
        for each in known:
            self.dead.remove(each)
            each.tries = 0
        self.waiting = sorted([*self.waiting, *known], key=lambda known: known.order)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, min_size=5, max_size=40))
def test_a_queue_does_what_a_naive_one_does(server: Server, namespace: str, steps: list[tuple[str, int]]) -> None:
    with sync.connect(server.address, namespace=namespace) as client:
        model = Model(client)
        for step, argument in steps:
            getattr(model, step)(argument)
            model.check()
