"""Pipeline: one stream of operations, each answered as soon as its end is known.

Messages are read one after another. The writes of a message go to the committer together; its reads are answered from
the store at once, those of one revision together, and those of a key that a write before them is still to change have
their turn among the writes. So what touches the same key keeps its order, without anything that waits for anything
else. Lists go by themselves, at the revision that they would have had in their place: see `pipeline_lists`.

What is unanswered is bounded, and so is what is answered and not yet taken by the client: beyond it nothing is read,
and gRPC holds the client back. There is no task an operation, and no future but one a message. A message may have as
much inside of its transactions as a thousand calls, so the loop is left to others after each PARTS of it, and its
writes are several batches where they could list very much: each is begun when there is room for what it may answer.
"""

import asyncio
import math
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import Final

from comity.v1 import state_pb2
from comity_server import tasks
from comity_server.access.rights import READ, READ_WRITE
from comity_server.committer import GROUP_PARTS, Answer, Committer
from comity_server.errors import (
    DeadlinePassed,
    Draining,
    InvalidRequest,
    StateError,
    TooManyPipelines,
    Violation,
)
from comity_server.limits import Limits
from comity_server.model import DeletePrefix, List, Outcome, Transaction
from comity_server.services import requests
from comity_server.services.admission import Place
from comity_server.services.call import Call
from comity_server.services.deadline import until
from comity_server.services.outbox import COPIES, Outbox, Outboxes
from comity_server.services.pipeline_answers import MESSAGE_BYTES, Answers, Message
from comity_server.services.pipeline_lists import Lists, Waiting
from comity_server.services.pipeline_messages import (
    GET,
    LIST,
    PARTS,
    RESULT_BYTES,
    STORED,
    TRANSACT,
    Result,
    Writer,
    entry_bytes,
    read,
    write,
)
from comity_server.services.pipeline_portions import Portion, portions
from comity_server.services.rpc import Requests
from comity_server.services.shape import OPERATIONS
from comity_server.services.validate import AUTHOR_BYTES, CLIENT_BYTES, Checks
from comity_server.stores.protocol import Store
from comity_server.telemetry.tally import Tally

PIPELINES: Final = 16  # of one connection: what is on its way to each takes up memory that nothing counts
UNANSWERED: Final = 4000  # operations of one stream, beyond which it is not read
WRITE_BYTES: Final = 400  # about what an operation that waits takes beside its message
PART_BYTES: Final = 150  # and each condition and operation inside of it
ANSWERED_BYTES: Final = 8 * 1024 * 1024  # that answers take until the client takes them, beyond which none are begun
LISTED: Final = 100_000  # entries that transactions under way may list: each takes about 150 bytes

_MARK: Final = Transaction()  # in the place of a list


class Pipelines:
    """The streams of a server.

    Args:
        store: what is read.
        committer: where writes go.
        limits: for what one request may ask.
        tally: where operations and their errors are counted.
        outboxes: the room that there is for answers.
    """

    def __init__(self, store: Store, committer: Committer, limits: Limits, tally: Tally, outboxes: Outboxes) -> None:
        self._store = store
        self._tally = tally
        self._committer = committer
        self._limits = limits
        self._outboxes = outboxes
        self._streams: dict[_Stream, None] = {}
        self._by_peer: Counter[str] = Counter()
        self._closed = False

    def close(self) -> None:
        """Read no more, and end each stream when what was read has its answers."""
        self._closed = True
        for stream in self._streams:
            stream.stop(Draining())

    async def stream(self, messages: Requests, call: Call) -> AsyncGenerator[bytes]:
        """Serialised answers, the next one made when the one before was taken off."""
        peer = call.peer
        if self._closed:
            raise Draining
        if self._by_peer[peer] >= PIPELINES:
            raise TooManyPipelines(PIPELINES)
        self._by_peer[peer] += 1
        outbox = self._outboxes.open(peer, call.meter.payer)
        stream = _Stream(self._store, self._committer, self._limits, call, self._tally, outbox)
        self._streams[stream] = None
        try:
            with call.caller.standing(stream.look, stream.stop):
                stream.start(messages)
                async for answer in stream.answers():
                    yield answer
        finally:
            del self._streams[stream]
            self._by_peer[peer] -= 1
            if not self._by_peer[peer]:
                del self._by_peer[peer]
            await stream.close()


class _Batch:
    """Writes of a message, the reads among them, and the marks of its lists: all, unless it asks for very much."""

    __slots__ = ("answer", "entries", "keys", "message", "operations", "parts", "wide")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.operations: list[tuple[int, int, Transaction]] = []
        self.parts = 0  # inside of its transactions
        self.entries = 0  # that they may list
        self.keys: set[str] = set()  # that it may change
        self.wide = False  # whether it may change others, too
        self.answer: Answer | None = None


class _Stream:
    def __init__(
        self, store: Store, committer: Committer, limits: Limits, call: Call, tally: Tally, outbox: Outbox
    ) -> None:
        self._tally = tally
        self._store = store
        self._committer = committer
        self._limits = limits
        self._caller = call.caller
        self._meter = call.meter
        self._metadata = call.metadata
        self._namespace = ""
        self._writer = Writer("", "", "", "")
        self._batches: dict[_Batch, None] = {}  # that are being committed, in their order
        self._changing: Counter[str] = Counter()  # their keys: in how many of them each is
        self._wide = 0  # how many of them may change other keys, too
        self._listing = 0  # entries that they may list
        self._outbox = outbox
        self._lists = Lists(store, limits, call.caller, MESSAGE_BYTES, outbox, self._fail)
        self._answers = Answers(self._lists.take_off, self._done, tally)
        self._messages: dict[Message, None] = {}  # that are not answered in full
        self._unanswered = 0
        self._ready = asyncio.Event()  # there is something to write, or nothing more will come
        self._room = asyncio.Event()  # more may be read
        self._reader: asyncio.Task[None] | None = None
        self._end: Exception | None = None  # what the stream ends with
        self._ending = False
        self._failed = False
        self._taking = False

    # Reading

    def start(self, messages: Requests) -> None:
        self._reader = asyncio.create_task(self._read(messages))

    def look(self) -> None:
        """Raise PermissionDenied if its caller may do nothing in the namespace any more."""
        if self._namespace:
            checks = self._checks()
            checks.somewhere(READ_WRITE)
            checks.finish()

    def _checks(self) -> Checks:
        return Checks(self._limits, self._caller, self._namespace)

    def stop(self, end: Exception | None) -> None:
        """Read no more. What was read is answered, before the stream ends with an error, or without one."""
        if not self._ending:
            self._ending = True
            self._end = end
            if self._reader is not None and not self._taking:
                self._reader.cancel()
        self._ready.set()

    def _fail(self, error: Exception) -> None:
        """Something that was read is never answered: end at once."""
        self._failed = True
        self.stop(error)
        self._end = error

    async def close(self) -> None:
        """Let go of everything. Writes that were not begun are not begun any more."""
        self._ending = True
        if self._reader is not None:  # first, since it adds lists
            await tasks.end(self._reader)
        await self._lists.close()
        self._outbox.leave()
        for batch in self._batches:
            if batch.answer is not None:
                batch.answer.cancel()
        for message in self._messages:
            message.place.leave()
        self._end = None  # it has been raised, or nobody is there any more: its frames have what was read last

    async def _read(self, messages: Requests) -> None:
        try:
            request, place, size = await messages.admitted(soon=True)
            self._begin(request, place)
            while True:
                await self._take_up(request, place, size)
                del request, place  # the next one may be long in coming
                if self._ending:
                    return
                while (
                    self._unanswered >= UNANSWERED or self._answers.held_bytes >= ANSWERED_BYTES or self._outbox.waits
                ):
                    self._room.clear()
                    await self._room.wait()
                request, place, size = await messages.admitted(soon=False)
                self._go_on(request, place)
        except EOFError:
            self.stop(None)
        except asyncio.CancelledError as error:
            if self._taking or not self._ending:  # it was not `stop`, and the answers must not wait for ever
                self._fail(tasks.unforeseen(error))
            raise
        except Exception as error:  # noqa: BLE001 - the call ends with it
            (self._fail if self._taking else self.stop)(error)

    def _begin(self, request: state_pb2.PipelineRequest, place: Place) -> None:
        """Take up what the first message says of the stream."""
        checks = self._checks()
        namespace, client, author = request.namespace, request.client, request.author
        checks.namespace("namespace", namespace)
        checks.somewhere(READ_WRITE)
        checks.text("client", client, CLIENT_BYTES)
        checks.text("author", author, AUTHOR_BYTES)
        self._namespace = self._lists.namespace = namespace
        self._writer = Writer(self._caller.client(client), *requests.said(author, "", self._metadata, checks))
        self._check(request, checks, place)
        self._meter.within(namespace)

    def _go_on(self, request: state_pb2.PipelineRequest, place: Place) -> None:
        checks = self._checks()
        checks.somewhere(READ_WRITE)
        if request.namespace not in ("", self._namespace):
            checks.wrong("namespace", "must be empty or that of the first message")
        if request.client or request.author:
            checks.wrong("client" if request.client else "author", "may be said in the first message only")
        self._check(request, checks, place)

    def _check(self, request: state_pb2.PipelineRequest, checks: Checks, place: Place) -> None:
        checks.count("awaited", request.awaited)
        if len(request.operations) > OPERATIONS:
            checks.wrong("operations", f"must not have more than {OPERATIONS} elements")
        if request.HasField("timeout"):
            seconds = checks.duration("timeout", request.timeout)
            if seconds is not None and seconds <= 0:
                checks.wrong("timeout", "must be above 0")
        try:
            checks.finish()
        except StateError:
            place.leave()
            raise

    async def _take_up(self, request: state_pb2.PipelineRequest, place: Place, size: int) -> None:
        """Begin each operation of a message, when the rates of its caller and of the namespace have room for it; what
        comes after it is held back meanwhile. For what they will have no room in its time it is refused."""
        arrived = asyncio.get_running_loop().time()
        deadline = _deadline(request, arrived)
        seconds = math.inf if deadline is None else deadline - arrived
        message = Message(place, len(request.operations))
        self._messages[message] = None
        self._unanswered += message.unanswered
        held_back = message.unanswered
        paying: list[Portion] = []
        try:
            for portion in portions(request, size, self._meter, self._limits.transaction_operations):
                if portion.refusal is None or portion.refusal.seconds <= seconds:
                    paying.append(portion)
                else:
                    held_back -= self._refuse(message, portion, portion.refusal)
            for portion in paying:
                refusal = await self._pay(portion, deadline)
                if refusal is not None:
                    held_back -= self._refuse(message, portion, refusal)
                    continue
                held_back -= len(portion.operations)
                self._taking = True
                await self._take(request.awaited, portion, message, deadline, is_last=portion is paying[-1])
                self._taking = False
                if self._ending:
                    return
        finally:
            if not self._taking and (held_back or not request.operations):  # the stream ends, or there was nothing
                self._done(message, held_back)
                self._ready.set()

    async def _pay(self, portion: Portion, deadline: float | None) -> StateError | None:
        """Wait until it can be paid for. Returns why it is refused, if its time is up before."""
        if self._meter.counts:
            try:
                async with until(deadline):
                    await self._meter.hold(portion.cost, portion.size)
            except DeadlinePassed as passed:
                return self._meter.refusal(portion.cost, portion.size) or passed.with_traceback(None)
        return None

    def _refuse(self, message: Message, portion: Portion, why: StateError) -> int:
        """Answer operations with an error. Returns how many they are."""
        self._answer(message, [(each.id, 0, None, why) for each in portion.operations])
        return len(portion.operations)

    async def _take(
        self, awaited: int, portion: Portion, message: Message, deadline: float | None, *, is_last: bool
    ) -> None:
        """Begin operations of a message, the last ones or others."""
        writer = self._writer
        batch = _Batch(message)
        batches = [batch]
        earlier: set[str] = set()  # keys of the batches before the last one
        reads: defaultdict[int, list[tuple[int, str]]] = defaultdict(list)  # by their revision; 0: the newest
        listed: list[Waiting] = []
        ahead: list[Waiting] = []  # of all writes
        others: list[Result] = []
        checks = self._checks()
        gone_through = 0
        counted = self._tally.operations
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
                    if not revision and (key in batch.keys or key in earlier or batch.wide or self._is_changing(key)):
                        batch.operations.append((id, kind, read(key)))
                    else:
                        reads[revision].append((id, key))
                elif kind == LIST:
                    counted[LIST] += 1
                    waiting = Waiting(id, operation.list, deadline, partial(self._answer, message))
                    listed.append(waiting)
                    if not waiting.is_at_a_revision():
                        if batch.operations or self._batches:
                            waiting.within, waiting.place = batch, len(batch.operations)
                            batch.operations.append((id, kind, _MARK))
                        else:
                            ahead.append(waiting)
                elif 0 < kind <= TRANSACT:
                    counted[kind] += 1
                    transaction = write(operation, kind, id, awaited, writer, checks)
                    if kind == TRANSACT:
                        inside = transaction.parts()
                        entries = self._entries(transaction)
                        if batch.parts + inside > GROUP_PARTS or batch.entries + entries > LISTED:
                            earlier |= batch.keys
                            batch = self._next(batch)
                            batches.append(batch)
                        batch.parts += inside
                        batch.entries += entries
                        gone_through += inside
                        self._mark(batch, transaction)
                    else:
                        batch.keys.add(transaction.then[0][0])
                    batch.operations.append((id, kind, transaction))
                else:
                    raise InvalidRequest(Violation("kind", "must be one of PipelineKind"))
            except StateError as error:
                others.append((id, 0, None, error.with_traceback(None)))  # which would keep all that is here
                checks = self._checks()
            if gone_through >= PARTS:
                gone_through = 0
                await asyncio.sleep(0)
        if others:
            self._answer(message, others)
        if ahead:
            await self._lists.locate(ahead)
        if len(reads) == 1:
            [(revision, together)] = reads.items()
            await self._answer_reads(message, together, revision, deadline)
        elif reads:
            await asyncio.gather(*(self._answer_reads(message, each, at, deadline) for at, each in reads.items()))
        if batch.operations:  # else there is none, and the place may have been left
            parts = sum(each.parts for each in batches)
            message.size += portion.size + PART_BYTES * parts
            if is_last:
                message.place.resize(message.size)  # until that is taken off
            share = (portion.size + PART_BYTES * parts) // len(batches)
            for each in batches:
                await self._commit(each, share + WRITE_BYTES * len(each.operations), deadline)
        if listed:
            self._lists.add(listed)

    def _is_changing(self, key: str) -> bool:
        return self._wide > 0 or key in self._changing

    def _begin_changing(self, batch: _Batch) -> None:
        self._batches[batch] = None
        self._changing.update(batch.keys)
        self._wide += batch.wide
        self._listing += batch.entries

    def _end_changing(self, batch: _Batch) -> None:
        del self._batches[batch]
        changing = self._changing
        for key in batch.keys:
            changing[key] -= 1
            if not changing[key]:
                del changing[key]
        self._wide -= batch.wide
        self._listing -= batch.entries
        self._room.set()

    def _entries(self, transaction: Transaction) -> int:
        """How many entries a transaction may list. Those of other reads are in the store anyway."""
        listed = sum(each.limit for each in (*transaction.then, *transaction.otherwise) if isinstance(each, List))
        return min(listed, self._limits.result_bytes // RESULT_BYTES)

    @staticmethod
    def _next(batch: _Batch) -> _Batch:
        """One for what follows in the same message."""
        following = _Batch(batch.message)
        following.wide = batch.wide
        return following

    @staticmethod
    def _mark(batch: _Batch, transaction: Transaction) -> None:
        """Note what a transaction may change, or read in its place."""
        for operation in (*transaction.then, *transaction.otherwise):
            if isinstance(operation, DeletePrefix):
                batch.wide = True
            else:
                batch.keys.add(operation[0])

    async def _answer_reads(
        self, message: Message, reads: Sequence[tuple[int, str]], revision: int, deadline: float | None
    ) -> None:
        """Answer before a write of the same message can change anything."""
        keys = [key for _, key in reads]
        try:
            async with until(deadline):
                entries, revision = await self._store.get_all(self._namespace, keys, revision)
        except StateError as error:
            self._answer(message, [(id, GET, None, error) for id, _ in reads])
        else:
            self._answer(
                message, [(id, STORED, entry, revision) for (id, _), entry in zip(reads, entries, strict=True)]
            )

    async def _commit(self, batch: _Batch, size: int, deadline: float | None) -> None:
        loop = asyncio.get_running_loop()
        writes = [transaction for _, _, transaction in batch.operations]
        try:
            async with until(deadline):
                await self._room_for(batch)
                await self._committer.room()
            timeout = None if deadline is None else deadline - loop.time()
            answer = self._committer.submit_all(self._namespace, writes, size, batch.parts, timeout=timeout)
        except StateError as error:
            answer = loop.create_future()
            answer.set_result([error] * len(writes))
        batch.answer = answer
        self._begin_changing(batch)
        answer.add_done_callback(partial(self._committed, batch))

    async def _room_for(self, batch: _Batch) -> None:
        """Wait until the client has taken what was answered, and what is under way cannot become too much."""
        while (
            self._answers.held_bytes >= ANSWERED_BYTES
            or self._outbox.waits
            or (self._listing and self._listing + batch.entries > LISTED)
        ):
            self._room.clear()
            await self._room.wait()

    def _committed(self, batch: _Batch, answer: Answer) -> None:
        if answer.cancelled():
            return
        self._end_changing(batch)
        outcomes = answer.result()
        if self._meter.counts:
            self._meter.charge(sum(outcome.searched for outcome in outcomes if isinstance(outcome, Outcome)), 0)
        results = [
            (id, kind, transaction, outcome)
            for (id, kind, transaction), outcome in zip(batch.operations, outcomes, strict=True)
            if kind != LIST
        ]
        if results:  # else the message has lists only, which may all be answered already
            self._answer(batch.message, results, sum(map(entry_bytes, outcomes)))

    # Answering

    def _answer(self, message: Message, results: Sequence[Result], size: int = 0) -> None:
        self._answers.add(message, results, size)
        self._ready.set()

    async def answers(self) -> AsyncGenerator[bytes]:
        """Messages, until the last operation that was read is answered. Raises what the stream ends with."""
        while not self._failed and (self._unanswered or not self._ending):
            if self._answers.is_due:
                await self._outbox.wait()
                self._room.set()
                messages = await self._answers.serialise()
                size = COPIES * sum(map(len, messages))
                self._outbox.settle(size)
                while messages:
                    yield messages.popleft()
                self._outbox.free(size)
            else:
                self._ready.clear()
                await self._ready.wait()
        if self._end is not None:
            raise self._end

    def _done(self, message: Message, count: int) -> None:
        """Some operations of a message are answered, and off to the client."""
        message.unanswered -= count
        if not message.unanswered:
            message.place.leave()
            del self._messages[message]
            self._tally.messages.add(time.perf_counter() - message.begun)
        self._unanswered -= count
        self._room.set()


def _deadline(request: state_pb2.PipelineRequest, arrived: float) -> float | None:
    """The time of the loop by which the operations of a message have to be begun, if there is one."""
    if not request.HasField("timeout"):
        return None
    return arrived + min(request.timeout.ToNanoseconds() / 1e9, 1e6)
