"""A client of a pipeline, as plain as docs/wire.md describes one: it sends messages, and finds answers by their ids.

async with connected(server.address) as channel, piped(channel, "namespace") as pipe:
    [written, read] = await pipe.ask(put("key", b"value"), get("key"))
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc

from comity.v1 import state_pb2 as s
from comity.v1 import state_pb2_grpc
from tests.wire.calls import Metadata, Refusal, read_refusal

SECONDS: Final = 60.0  # a test that waits so long has failed

Result = s.PipelineResult


def get(key: str, revision: int = 0) -> s.PipelineOperation:
    return s.PipelineOperation(kind=s.PIPELINE_KIND_GET, key=key, revision=revision)


def put(key: str, value: bytes = b"", **fields: Any) -> s.PipelineOperation:
    return s.PipelineOperation(kind=s.PIPELINE_KIND_PUT, key=key, value=value, **fields)


def create(key: str, value: bytes = b"", **fields: Any) -> s.PipelineOperation:
    return s.PipelineOperation(kind=s.PIPELINE_KIND_CREATE, key=key, value=value, **fields)


def delete(key: str, **fields: Any) -> s.PipelineOperation:
    return s.PipelineOperation(kind=s.PIPELINE_KIND_DELETE, key=key, **fields)


def increment(key: str, delta: int = 1, **fields: Any) -> s.PipelineOperation:
    return s.PipelineOperation(kind=s.PIPELINE_KIND_INCREMENT, key=key, delta=delta, **fields)


def listing(prefix: str = "", **fields: Any) -> s.PipelineOperation:
    return s.PipelineOperation(kind=s.PIPELINE_KIND_LIST, list=s.ListRequest(prefix=prefix, **fields))


def transact(**fields: Any) -> s.PipelineOperation:
    return s.PipelineOperation(kind=s.PIPELINE_KIND_TRANSACT, transact=s.TransactRequest(**fields))


class Pipe:
    """One stream. What it was answered is in `arrived`, in the order in which it came."""

    def __init__(self, call: Any, first: dict[str, Any]) -> None:
        self.arrived: list[Result] = []
        self.message_bytes: list[int] = []  # of each message that came
        self.last_id = 0
        self.reading = asyncio.Event()  # while it is clear no more is taken off than gRPC takes by itself
        self.reading.set()
        self._call = call
        self._first = first  # what the next message says once for the stream
        self._awaited: defaultdict[int, deque[asyncio.Future[Result]]] = defaultdict(deque)
        self._end: Refusal | None = None
        self._reading = asyncio.create_task(self._read())

    async def ask(self, *operations: s.PipelineOperation, **said: Any) -> list[Result]:
        """Send operations as one message, and wait for all of their answers. Those without an id are given the next."""
        return await self.all(await self.send(*operations, **said))

    async def one(self, operation: s.PipelineOperation, **said: Any) -> Result:
        [result] = await self.ask(operation, **said)
        return result

    async def send(self, *operations: s.PipelineOperation, **said: Any) -> "list[asyncio.Future[Result]]":
        """The same, without waiting for the answers; with waiting until gRPC has taken the message."""
        for operation in operations:
            if not operation.id:
                operation.id = self.last_id + 1
            self.last_id = max(self.last_id, operation.id)
        return await self.send_message(s.PipelineRequest(operations=operations, **said))

    async def send_message(self, message: s.PipelineRequest) -> "list[asyncio.Future[Result]]":
        """Send a message as it is, but for what the first one has to say."""
        first, self._first = self._first, {}
        message.MergeFrom(s.PipelineRequest(**first))
        answers = [self._answer(operation.id) for operation in message.operations]
        try:
            await self._call.write(message)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the stream has ended, which `ended` tells
            await self.ended()
            self._fail()
        return answers

    async def all(self, answers: "Sequence[asyncio.Future[Result]]") -> list[Result]:
        """Wait for answers. Raises AssertionError with what the stream ended with, if it ended before."""
        async with asyncio.timeout(SECONDS):
            return list(await asyncio.gather(*answers))

    async def done_writing(self) -> None:
        await self._call.done_writing()

    async def ended(self) -> Refusal | None:
        """Wait for the end of the stream: None, if it ended well."""
        async with asyncio.timeout(SECONDS):
            await self._reading
        return self._end

    def cancel(self) -> None:
        self._call.cancel()

    async def close(self) -> None:
        self.cancel()
        self._reading.cancel()
        await asyncio.wait([self._reading])

    def _answer(self, id: int) -> "asyncio.Future[Result]":
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._awaited[id].append(answer)
        return answer

    async def _next(self) -> Any:
        await self.reading.wait()
        return await self._call.read()

    async def _read(self) -> None:
        try:
            while (message := await self._next()) is not grpc.aio.EOF:
                self.message_bytes.append(message.ByteSize())
                for result in message.results:
                    self.arrived.append(result)
                    if self._awaited[result.id]:
                        self._awaited[result.id].popleft().set_result(result)
            code = await self._call.code()
            assert code is grpc.StatusCode.OK, code
        except grpc.aio.AioRpcError as error:
            self._end = read_refusal(error)
        except asyncio.CancelledError:
            if not self._call.cancelled():
                raise
        self._fail()

    def _fail(self) -> None:
        for waiting in self._awaited.values():
            for answer in waiting:
                if not answer.done():
                    answer.set_exception(AssertionError(f"the stream ended before: {self._end}"))
                    answer.exception()  # whoever does not wait for it need not hear of it


@asynccontextmanager
async def connected(address: str, **options: Any) -> AsyncIterator[grpc.aio.Channel]:
    """A connection of its own."""
    own = [("grpc.use_local_subchannel_pool", 1), *options.items()]
    async with grpc.aio.insecure_channel(address, options=own) as channel:
        yield channel


@asynccontextmanager
async def piped(
    channel: grpc.aio.Channel, namespace: str, *, client: str = "", author: str = "", metadata: Metadata = ()
) -> AsyncIterator[Pipe]:
    """Open a pipeline. It is cancelled in the end."""
    state: state_pb2_grpc.StateServiceAsyncStub = state_pb2_grpc.StateServiceStub(channel)
    pipe = Pipe(state.Pipeline(metadata=metadata), {"namespace": namespace, "client": client, "author": author})
    try:
        yield pipe
    finally:
        await pipe.close()
