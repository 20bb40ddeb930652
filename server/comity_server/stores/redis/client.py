"""Speaks to Redis: commands and scripts with deadlines, tried again where they may be done twice."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import structlog
from redis.asyncio.cluster import PipelineCommand
from redis.exceptions import NoScriptError, RedisError, ResponseError, SlotNotCoveredError

from comity_server.errors import StateError, StoreUnavailable
from comity_server.stores.redis.connection import Connection, connect, pipelined, sentinels_of
from comity_server.stores.redis.failures import (
    PASSING,
    REFUSED,
    Passing,
    Unreadable,
    passing,
    refusal_of,
    unreadable_of,
)
from comity_server.stores.redis.patience import Patience
from comity_server.stores.redis.primaries import Primaries
from comity_server.stores.redis.script import TOUCH, Script, evaluate
from comity_server.stores.redis.url import Target

log = structlog.get_logger(__name__)

ANSWER_SECONDS: Final = 2.0  # how long one command may take
LOOK_SECONDS: Final = 0.5  # likewise, where it only tells whether Redis is there
BLOCK_SECONDS: Final = 1.0  # how long a blocking read waits

T = TypeVar("T")


class Client:
    """Connections to one Redis. Use from one event loop.

    Args:
        target: where it is.
        wait_replicas: how many replicas must have a write before it is answered.
    """

    def __init__(self, target: Target, *, wait_replicas: int = 0) -> None:
        self.target = target
        self.failure: StateError | None = None  # why the last call failed; None: it did not
        self.refusal: StateError | None = None  # why the last write was refused; None: it was not
        self.reachable = True  # when it was last looked at
        self.trouble: StateError | None = None  # why a primary would refuse writes, when they were last tried
        self.wait_replicas = wait_replicas
        self._failing_since: float | None = None
        self._told = ""  # why Redis refused, as the log has it
        self._moved = False  # whether a Cluster may have given slots to other nodes
        self._redis = connect(target, ANSWER_SECONDS)
        self._blocking = connect(target, BLOCK_SECONDS + ANSWER_SECONDS)
        self._looking = connect(target, LOOK_SECONDS)
        self._primaries = Primaries(target, self._looking, wait_replicas)

    async def close(self) -> None:
        for connection in (self._redis, self._blocking, self._looking):
            await connection.aclose()
            for sentinel in sentinels_of(connection):
                await sentinel.aclose()

    async def call(self, *command: Any) -> Any:
        """A command that may be done twice. Errors as of `repeated`."""
        return await self.repeated(partial(self.ask, *command))

    async def call_all(self, commands: Sequence[Sequence[Any]]) -> Sequence[Any]:
        """Commands that may be done twice, all at a time, by one connection to each node. Errors as of `repeated`; but
        where something else has a command's key, Unreadable is its answer."""

        async def ask(redis: Connection) -> Sequence[Any]:
            return [_readable(answer) for answer in await pipelined(redis, commands)]

        return await self.repeated(partial(self.once, ask))

    async def ask(self, *command: Any) -> Any:
        """A command, once. Errors as of `once`."""
        return await self.once(lambda redis: redis.execute_command(*command))

    async def repeated(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Do what may be done twice, and try while Redis cannot be reached. Raises StoreUnavailable or StoreFull."""
        patience = self.patience()
        while True:
            try:
                return await attempt()
            except Passing as error:
                await patience.wait(error)

    def patience(self) -> Patience:
        """For attempts that begin now. Who comes when Redis has long been away does not wait as long again."""
        now = asyncio.get_running_loop().time()
        since = self._failing_since
        return Patience(now if since is None else since)

    async def once(self, command: Callable[[Connection], Awaitable[T]]) -> T:
        """Do something once. Raises Passing if it is not known whether it was done and it may be tried again."""
        try:
            result = await command(self._redis)
        except PASSING as error:
            self.failure = passing(error)
            if self._failing_since is None:
                self._failing_since = asyncio.get_running_loop().time()
            log.debug("Redis cannot be reached", error=str(error))
            raise Passing(self.failure) from error
        except RedisError as error:
            if (unreadable := unreadable_of(error)) is not None:  # Redis is well
                raise unreadable from error
            self.failure = self._refused(error)
            raise self.failure from error
        self.failure = self._failing_since = None
        return result

    async def run(self, script: Script, names: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run a script once, and have it loaded if Redis has lost it. Errors as of `once`.

        Where replicas are waited for, returns when they have what it wrote; if too few do, raises StoreUnavailable.
        """
        try:
            answer = await self.once(partial(evaluate, script, names, arguments, partial(self._waited, key=names[0])))
        except Passing as error:  # it may be that Redis takes no writes, while all else succeeds
            self.refusal = error.failure
            raise
        except Unreadable:
            raise
        except StateError as error:
            self.refusal = error
            raise
        if self.target.form != "cluster":  # where others may refuse what this node takes
            self._takes_writes()
        return answer

    async def look_by(self, script: Script, names: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run a script that writes nothing. Errors as of `once`."""

        async def execute(redis: Connection, command: Sequence[Any]) -> Any:
            return await redis.execute_command(*command)

        return await self.once(partial(evaluate, script, names, arguments, execute))

    async def look_by_all(self, script: Script, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> Sequence[Any]:
        """Run a script for which nobody waits for replicas with each of some names and arguments, all at a time, by one
        connection to each node. Errors as of `once`; but where something else has a name, Unreadable is the answer, and
        Passing where a node answers others but not this one now."""
        rests = [(len(names), *names, *arguments) for names, arguments in calls]

        async def ask(redis: Connection) -> Sequence[Any]:
            answers = await pipelined(redis, [("EVALSHA", script.digest, *rest) for rest in rests])
            if any(isinstance(answer, NoScriptError) for answer in answers):
                answers = await pipelined(redis, [("EVAL", script.text, *rest) for rest in rests])
            if all(isinstance(answer, PASSING) for answer in answers):
                raise answers[0]
            return [_readable(answer, script) for answer in answers]

        return await self.once(ask) if calls else []

    async def by_node(self, names: Sequence[str]) -> Sequence[Sequence[str]]:
        """Keys, those apart that are on different nodes. Errors as of `once`."""
        if self.target.form != "cluster":
            return [names] if names else []

        async def split(redis: Connection) -> Sequence[Sequence[str]]:
            await redis.initialize()
            nodes: dict[str, list[str]] = {}
            for name in names:
                try:
                    node = redis.get_node_from_key(name).name
                except SlotNotCoveredError:
                    node = ""
                nodes.setdefault(node, []).append(name)
            return list(nodes.values())

        return await self.once(split)

    async def try_writes(self) -> None:
        """See whether each primary takes writes and has its replicas, without waiting long, and where a call has failed
        whether it would succeed. Errors as of `once`."""
        try:
            tried = await self._primaries.check()
        except PASSING as error:
            self.trouble = passing(error)
            raise Passing(self.trouble) from error
        except RedisError as error:
            self.trouble = self._refused(error)
            raise self.trouble from error
        except StoreUnavailable as error:
            self.trouble = error
            raise
        if self.trouble is not None:
            self.trouble, self._told = None, ""
        if self.failure is not None or self.refusal is not None:
            await self._probe(tried)

    async def _probe(self, written: Sequence[str]) -> None:
        """Write something of no meaning to each primary, and wait for its replicas. Errors as of `once`."""
        refusal = self.refusal
        for key in written:
            await self.once(partial(self._waited, key=key, command=("INCR", key)))
        if self.refusal is refusal:
            self._takes_writes()

    def _takes_writes(self) -> None:
        self.refusal = None
        self._told = ""

    def _refused(self, error: RedisError) -> StateError:
        """What a refusal means, which the log has once, until writes are taken again: it is tried over and over, by
        clients too."""
        failure = refusal_of(error)
        why = str(error) if failure.message == REFUSED else failure.message
        (log.debug if why == self._told else log.warning)("Redis refused", error=str(error))
        self._told = why
        return failure

    async def await_replicas(self, key: str) -> None:
        """Return when as many replicas as are wanted have all that was written to the node of a key. Errors as of
        `call`."""
        if self.wait_replicas:
            # WAIT counts what its own connection has written: so it writes something of no meaning.
            await self.repeated(partial(self.run, TOUCH, [key], []))

    async def _waited(self, redis: Connection, key: str, command: Sequence[Any]) -> Any:
        """A command, and then WAIT on the same connection: it counts what was written by it."""
        if not self.wait_replicas:
            return await redis.execute_command(*command)
        wait = ("WAIT", self.wait_replicas, int(ANSWER_SECONDS * 500))
        if self.target.form == "cluster":
            await redis.initialize()
            if self._moved:  # redis-py learns where slots are from what it routes by itself
                await redis.execute_command("EXISTS", key)
                self._moved = False
            node = redis.get_node_from_key(key)
            commands = [PipelineCommand(place, *one) for place, one in enumerate((command, wait))]
            try:
                await node.execute_pipeline(commands)
            except PASSING:
                self._moved = True
                raise
            answers = [one.result for one in commands]
            self._moved = isinstance(answers[0], PASSING)
        else:
            pipeline = redis.pipeline(transaction=False)
            for one in (command, wait):
                pipeline.execute_command(*one)
            answers = await pipeline.execute(raise_on_error=False)
        answer, reached = answers
        for found in answers:
            if isinstance(found, Exception):
                raise found
        if int(str(reached)) < self.wait_replicas:
            self.failure = StoreUnavailable(f"only {reached} of {self.wait_replicas} replicas have the write")
            raise self.failure
        return answer

    async def look(self, key: str) -> tuple[int, bytes | None]:
        """Whether Redis is there, without waiting long: the clock of the node that has a key, in µs since 1970, and
        what the key holds. Errors as of `once`."""
        where: dict[str, Any] = {}
        try:
            if self.target.form == "cluster":
                await self._looking.initialize()
                where["target_nodes"] = self._looking.get_node_from_key(key)
            seconds, micros = await self._looking.execute_command("TIME", **where)
            found = await self._looking.get(key)
        except PASSING as error:
            self.reachable = False
            raise Passing(passing(error)) from error
        except RedisError as error:
            self.reachable = False
            raise refusal_of(error) from error
        self.reachable = True
        return int(seconds) * 1_000_000 + int(micros), found

    async def read_blocking(self, key: str, after: str, count: int) -> Sequence[tuple[bytes, dict[bytes, bytes]]]:
        """So many entries of a stream after an id, as soon as there are any, or none after a while."""
        try:
            found = await self._blocking.xread({key: after}, count=count, block=int(BLOCK_SECONDS * 1000))
        except PASSING as error:
            raise Passing(passing(error)) from error
        except RedisError as error:
            raise refusal_of(error) from error
        return found[0][1] if found else []


def _readable(answer: Any, script: Script | None = None) -> Any:
    """An answer, or that what is under the key is something else, or of a script that it may be tried again. Raises
    what else was answered by an error."""
    if not isinstance(answer, Exception):
        return answer
    if (unreadable := unreadable_of(answer)) is not None:
        return unreadable
    if script is not None and isinstance(answer, PASSING):
        return Passing(passing(answer))
    refusal = script.refusal(answer) if script is not None and isinstance(answer, ResponseError) else None
    if refusal is not None:
        raise refusal from answer
    raise answer
