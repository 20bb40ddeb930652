"""How the operations of a pipeline are begun: each is a read, a write or a list, and is answered wherever that goes.

Reads are answered from the store at once, those of one revision together, and those of a key that a write before them
is still to change have their turn among the writes. So what touches the same key keeps its order, without anything that
waits for anything else. A message may have as much inside of its transactions as a thousand calls, so the loop is left
to others after each PARTS of it.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Final

from comity_server.access.caller import Caller
from comity_server.access.rights import READ
from comity_server.errors import InvalidRequest, StateError, Violation
from comity_server.limits import Limits
from comity_server.services.deadline import until
from comity_server.services.pipeline_answers import Answers, Message
from comity_server.services.pipeline_lists import Lists, Waiting
from comity_server.services.pipeline_messages import GET, LIST, PARTS, STORED, TRANSACT, Result, Writer, read, write
from comity_server.services.pipeline_portions import Portion
from comity_server.services.pipeline_writes import Batch, Writes
from comity_server.services.validate import Checks
from comity_server.stores.protocol import Store
from comity_server.telemetry.tally import Tally

PART_BYTES: Final = 150  # about what each condition and operation inside of a write that waits takes


class Taking:
    """Begins the operations of one stream.

    Args:
        store: what is read.
        limits: for what one operation may ask.
        caller: whose stream it is.
        writes: begins those.
        lists: likewise.
        answers: where reads are answered, and what is wrong.
        tally: where operations are counted.
    """

    def __init__(
        self,
        store: Store,
        limits: Limits,
        caller: Caller,
        writes: Writes,
        lists: Lists,
        answers: Answers,
        tally: Tally,
    ) -> None:
        self._store = store
        self._limits = limits
        self._caller = caller
        self._writes = writes
        self._lists = lists
        self._answers = answers
        self._counted = tally.operations
        self._namespace = ""
        self._writer = Writer("", "", "", "")

    def within(self, namespace: str, writer: Writer) -> None:
        """What the stream has said that it holds for."""
        self._namespace = self._writes.namespace = self._lists.namespace = namespace
        self._writer = writer

    def checks(self) -> Checks:
        """To collect what is wrong with what is said within its namespace."""
        return Checks(self._limits, self._caller, self._namespace)

    async def take(
        self, awaited: int, portion: Portion, message: Message, deadline: float | None, *, is_last: bool
    ) -> None:
        """Begin operations of a message, the last ones or others."""
        writer = self._writer
        writes = self._writes
        batch = Batch(message)
        batches = [batch]
        earlier: set[str] = set()  # keys of the batches before the last one
        reads: defaultdict[int, list[tuple[int, str]]] = defaultdict(list)  # by their revision; 0: the newest
        listed: list[Waiting] = []
        ahead: list[Waiting] = []  # of all writes
        others: list[Result] = []
        checks = self.checks()
        gone_through = 0
        counted = self._counted
        for operation in portion.operations:
            id, kind = operation.id, operation.kind
            gone_through += 1
            try:
                if id < 1:
                    raise InvalidRequest(Violation("id", "must be 1 or more"))
                if kind == GET:
                    counted[GET] += 1
                    key = operation.key
                    checks.key("key", key, READ)
                    revision = operation.revision
                    checks.count("revision", revision)
                    checks.finish()
                    if not revision and (key in batch.keys or key in earlier or batch.wide or writes.may_change(key)):
                        batch.operations.append((id, kind, read(key)))
                    else:
                        reads[revision].append((id, key))
                elif kind == LIST:
                    counted[LIST] += 1
                    waiting = Waiting(id, operation.list, deadline, partial(self._answers.add, message))
                    listed.append(waiting)
                    if not waiting.is_at_a_revision():
                        if batch.operations or writes:
                            waiting.within, waiting.place = batch, batch.mark(id)
                        else:
                            ahead.append(waiting)
                elif 0 < kind <= TRANSACT:
                    counted[kind] += 1
                    transaction = write(operation, kind, id, awaited, writer, checks)
                    if kind == TRANSACT:
                        inside, entries = transaction.parts(), writes.entries(transaction)
                        if not batch.has_room(inside, entries):
                            earlier |= batch.keys
                            batch = Batch(message, wide=batch.wide)
                            batches.append(batch)
                        batch.add(transaction, inside, entries)
                        gone_through += inside
                    else:
                        batch.keys.add(transaction.then[0][0])
                    batch.operations.append((id, kind, transaction))
                else:
                    raise InvalidRequest(Violation("kind", "must be one of PipelineKind"))
            except StateError as error:
                others.append((id, max(kind, 0), None, error.with_traceback(None)))  # which would keep all that is here
                checks = self.checks()
            if gone_through >= PARTS:
                gone_through = 0
                await asyncio.sleep(0)
        if others:
            self._answers.add(message, others)
        if ahead:
            await self._lists.locate(ahead)
        if len(reads) == 1:
            [(revision, together)] = reads.items()
            await self._answer_reads(message, together, revision, deadline)
        elif reads:
            await asyncio.gather(*(self._answer_reads(message, each, at, deadline) for at, each in reads.items()))
        if batch.operations:  # else there is none, and the place may have been left
            size = portion.size + PART_BYTES * sum(each.parts for each in batches)
            message.size += size
            if is_last:
                message.place.resize(message.size)  # until that is taken off
            for each in batches:
                await writes.commit(each, size // len(batches), deadline)
        if listed:
            self._lists.add(listed)

    async def _answer_reads(
        self, message: Message, reads: Sequence[tuple[int, str]], revision: int, deadline: float | None
    ) -> None:
        """Answer before a write of the same message can change anything, as much at a time as there is room for."""
        while reads:
            try:
                async with until(deadline):
                    await self._answers.room()
                    entries, at = await self._store.get_all(self._namespace, [key for _, key in reads], revision)
            except StateError as error:
                self._answers.add(message, [(id, GET, None, error) for id, _ in reads])
                return
            count, size = self._answers.fitting(entries)
            self._answers.add(
                message, [(id, STORED, entry, at) for (id, _), entry in zip(reads[:count], entries, strict=False)], size
            )
            reads = reads[count:]
