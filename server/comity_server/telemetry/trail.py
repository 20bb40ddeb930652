"""What is remembered of one call while it goes on: for the counts, for the log, and for its trace.

A trail is kept in a context variable, so that each line which is logged within a call can say which call that was. Its
id is made when somebody asks for it: most calls are of no interest to anybody.
"""

import re
import time
import uuid
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Literal

import grpc
import structlog

from comity_server.telemetry.tally import Method, Tally

if TYPE_CHECKING:
    from comity_server.telemetry.tracing import Tracing  # nobody who traces nothing need wait for the import

log = structlog.get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
LogCalls = Literal["none", "failed", "all"]

# The names of namespaces, of which one that is wrong might be anything; and what clients may call their calls.
NAMESPACE: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
REQUEST_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}")
TRACE_PARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}.*")
EARLY: Final = 0.1  # seconds by which a client that gives up at its deadline may be heard of before it
NO_FAILURE: Final = ("OK", "CANCELLED")  # the latter is how watches end


class Trail:
    """One call. `code` is what it ends with; until that is known, what it ends with if the client goes away. Its error
    has a `reason`; `why` are its words, of those that have nothing in them of what the client sent."""

    __slots__ = (
        "_context",
        "_request_id",
        "_span",
        "_trails",
        "begun",
        "code",
        "ended",
        "method",
        "namespace",
        "principal",
        "reason",
        "received",
        "sent",
        "why",
    )

    def __init__(self, trails: "Trails", method: Method, context: Context) -> None:
        self.method = method
        self.begun = time.perf_counter()
        self.code = "CANCELLED"
        self.reason = ""
        self.why = ""
        self.ended = False
        self.principal = ""
        self.namespace = ""
        self.received = 0
        self.sent = 0
        self._trails = trails
        self._context = context
        self._request_id = ""
        self._span: Any = None
        method.open += 1
        if trails.tracing is not None:
            self._span = trails.tracing.current()

    @property
    def request_id(self) -> str:
        """What the client calls it by its metadata `x-request-id`, or else an id that is made here."""
        if not self._request_id:
            said = self._metadata("x-request-id")
            self._request_id = said if REQUEST_ID.fullmatch(said) else uuid.uuid4().hex
        return self._request_id

    @property
    def span(self) -> Any:
        """The span of the call, if calls are traced."""
        return self._span

    @property
    def logs_failures(self) -> bool:
        """Whether what fails within it has a line of the log."""
        return self._trails.log_calls != "none"

    def log_operation(self, operation: str, code: str, reason: str, count: int) -> None:
        """So many operations of the call have failed alike: they have a line, as a call would that fails alone."""
        more = {"namespace": self.namespace} if self.namespace else {}
        log.info("operation", operation=operation, code=code, reason=reason, count=count, **more)

    def took(self, size: int) -> None:
        """A message of the client has been read."""
        self.received += size
        self.method.received_bytes += size
        self.method.received_messages += 1

    def gave(self, size: int) -> None:
        """A message has been given to the client."""
        self.sent += size
        self.method.sent_bytes += size
        self.method.sent_messages += 1

    def asks(self, request: Any) -> None:
        """What the call asks for, of which the namespace is remembered if somebody wants to know."""
        if self._trails.remembers and not self.namespace:
            namespace = getattr(request, "namespace", "")
            if NAMESPACE.fullmatch(namespace):
                self.namespace = namespace

    def end(self) -> None:
        """The call has ended."""
        if self.code == "CANCELLED":
            left: float | None = self._context.time_remaining()
            if left is not None and left <= EARLY:
                self.code = "DEADLINE_EXCEEDED"
        seconds = time.perf_counter() - self.begun
        self.method.open -= 1
        self.method.ended(self.code, seconds)
        wanted = self._trails.log_calls
        if wanted == "all" or (wanted == "failed" and self.code not in NO_FAILURE):
            self._log(seconds)
        if self._span is not None:
            assert self._trails.tracing is not None
            self._trails.tracing.end(self._span, self.code, self.namespace)
        self.ended = True

    def said(self) -> dict[str, str]:
        """What each line of the log says of the call."""
        said = {"request_id": self.request_id, "method": self.method.full_name, "peer": self._context.peer()}
        if self.principal:
            said["principal"] = self.principal
        if self._span is not None:
            span = self._span.get_span_context()
            said |= {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"}
        elif parent := TRACE_PARENT.fullmatch(self._metadata("traceparent")):
            said["trace_id"] = parent[1]
        return said

    def _metadata(self, name: str) -> str:
        return next(
            (
                value
                for key, value in self._context.invocation_metadata() or ()
                if key == name and isinstance(value, str)
            ),
            "",
        )

    def _log(self, seconds: float) -> None:
        more = {name: said for name in ("reason", "why", "namespace") if (said := getattr(self, name))}
        log.info("call", code=self.code, seconds=round(seconds, 6), received=self.received, sent=self.sent, **more)


class Trails:
    """Makes the trails of a server's calls.

    Args:
        tally: where they are counted.
        log_calls: which of them have a line of the log when they end.
        tracing: makes their spans; None: they have none.
    """

    def __init__(self, tally: Tally, log_calls: LogCalls = "none", tracing: "Tracing | None" = None) -> None:
        self.tally = tally
        self.log_calls = log_calls
        self.tracing = tracing
        self.remembers = log_calls != "none" or tracing is not None

    def begin(self, method: Method, context: Context) -> Trail:
        """A call has begun, in a task of its own. To be ended."""
        trail = Trail(self, method, context)
        CURRENT.set(trail)
        return trail


CURRENT: Final[ContextVar[Trail | None]] = ContextVar("comity_trail", default=None)


def merge(_: object, __: str, event: Any) -> Any:
    """A processor of structlog: says which call a line is about. What outlives the call is not about it any more."""
    trail = CURRENT.get()
    if trail is not None and not trail.ended:
        return trail.said() | event
    return event
