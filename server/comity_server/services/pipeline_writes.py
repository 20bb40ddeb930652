"""The writes of a pipeline: those of a message are committed together, and it is known meanwhile what they may change.

With them goes what has its turn among them: reads of what they may change, and the marks of lists. A message that asks
for very much has several batches, and each is begun when there is room for what it may answer.
"""

import asyncio
from collections import Counter
from functools import partial
from typing import Final

from comity_server.access.bounds import Meter
from comity_server.committer import GROUP_PARTS, Answer, Committer
from comity_server.errors import StateError
from comity_server.limits import Limits
from comity_server.model import DeletePrefix, List, Outcome, Transaction
from comity_server.services.deadline import until
from comity_server.services.pipeline_answers import Answers, Message
from comity_server.services.pipeline_messages import LIST, RESULT_BYTES, entry_bytes

WRITE_BYTES: Final = 400  # about what an operation that waits takes beside its message
LISTED: Final = 100_000  # entries that transactions under way may list: each takes about 150 bytes

_MARK: Final = Transaction()  # in the place of a list


class Batch:
    """Writes of a message, the reads among them, and the marks of its lists: all, unless it asks for very much.

    Args:
        message: whose they are.
        wide: whether it may change more keys than those that are known.
    """

    __slots__ = ("answer", "entries", "keys", "message", "operations", "parts", "wide")

    def __init__(self, message: Message, *, wide: bool = False) -> None:
        self.message = message
        self.operations: list[tuple[int, int, Transaction]] = []  # each with its id and its kind
        self.parts = 0  # inside of its transactions
        self.entries = 0  # that they may list
        self.keys: set[str] = set()  # that it may change
        self.wide = wide
        self.answer: Answer | None = None

    def has_room(self, parts: int, entries: int) -> bool:
        """Whether there may be a transaction in it that has so much inside, and may list so many entries."""
        return self.parts + parts <= GROUP_PARTS and self.entries + entries <= LISTED

    def add(self, transaction: Transaction, parts: int, entries: int) -> None:
        """Note what a transaction has inside, and what it may change, or read in its place."""
        self.parts += parts
        self.entries += entries
        for operation in (*transaction.then, *transaction.otherwise):
            if isinstance(operation, DeletePrefix):
                self.wide = True
            else:
                self.keys.add(operation[0])

    def mark(self, id: int) -> int:
        """Have a list wait for its turn. Returns the place of its mark."""
        self.operations.append((id, LIST, _MARK))
        return len(self.operations) - 1


class Writes:
    """Those of one stream that are under way.

    Args:
        committer: where they go.
        limits: for what one may list.
        meter: what they take of their caller's rates.
        answers: where their ends go.
    """

    def __init__(self, committer: Committer, limits: Limits, meter: Meter, answers: Answers) -> None:
        self.namespace = ""
        self._committer = committer
        self._result_bytes = limits.result_bytes
        self._meter = meter
        self._answers = answers
        self._batches: dict[Batch, None] = {}  # in their order
        self._changing: Counter[str] = Counter()  # their keys: in how many of them each is
        self._wide = 0  # how many of them may change other keys, too
        self._listing = 0  # entries that they may list

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._batches)

    def may_change(self, key: str) -> bool:
        """Whether one of them may change a key."""
        return self._wide > 0 or key in self._changing

    def entries(self, transaction: Transaction) -> int:
        """How many entries a transaction may list. Those of other reads are in the store anyway."""
        listed = sum(each.limit for each in (*transaction.then, *transaction.otherwise) if isinstance(each, List))
        return min(listed, self._result_bytes // RESULT_BYTES)

    async def commit(self, batch: Batch, size: int, deadline: float | None) -> None:
        """Begin a batch of about so many bytes when there is room for what it may answer, and in the committer."""
        loop = asyncio.get_running_loop()
        writes = [transaction for _, _, transaction in batch.operations]
        size += WRITE_BYTES * len(writes)
        try:
            async with until(deadline):
                await self._answers.room(lambda: not self._listing or self._listing + batch.entries <= LISTED)
                await self._committer.room()
            timeout = None if deadline is None else deadline - loop.time()
            answer = self._committer.submit_all(self.namespace, writes, size, batch.parts, timeout=timeout)
        except StateError as error:
            answer = loop.create_future()
            answer.set_result([error] * len(writes))
        batch.answer = answer
        self._begin(batch)
        answer.add_done_callback(partial(self._committed, batch))

    def cancel(self) -> None:
        """Nobody asks for them any more: those that were not begun are not begun."""
        for batch in self._batches:
            if batch.answer is not None:
                batch.answer.cancel()

    def _begin(self, batch: Batch) -> None:
        self._batches[batch] = None
        self._changing.update(batch.keys)
        self._wide += batch.wide
        self._listing += batch.entries

    def _end(self, batch: Batch) -> None:
        del self._batches[batch]
        changing = self._changing
        for key in batch.keys:
            changing[key] -= 1
            if not changing[key]:
                del changing[key]
        self._wide -= batch.wide
        self._listing -= batch.entries
        self._answers.changed()

    def _committed(self, batch: Batch, answer: Answer) -> None:
        if answer.cancelled():
            return
        self._end(batch)
        outcomes = answer.result()
        if self._meter.counts:
            self._meter.charge(sum(outcome.searched for outcome in outcomes if isinstance(outcome, Outcome)), 0)
        results = [
            (id, kind, transaction, outcome)
            for (id, kind, transaction), outcome in zip(batch.operations, outcomes, strict=True)
            if kind != LIST
        ]
        if results:  # else the message has lists only, which may all be answered already
            self._answers.add(batch.message, results, sum(map(entry_bytes, outcomes)))
