"""What OpenTelemetry knows of the task that writes, in programs that use it: this client does not need it.

Its instrumentation of gRPC, which a program need not have, would say the trace of a call; but operations that share a
stream each have their own.
"""

import sys
from collections.abc import Callable
from typing import TypeVar

__all__ = ["current", "untraced"]

T = TypeVar("T")


def current() -> str | None:
    """The W3C traceparent of the current span; None if there is none."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    span = trace.get_current_span().get_span_context()
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}" if span.is_valid else None


def untraced(call: Callable[[], T]) -> T:
    """Make a call that is no part of a trace."""
    instrumentation = sys.modules.get("opentelemetry.instrumentation.utils")
    if instrumentation is None:
        return call()
    with instrumentation.suppress_instrumentation():
        return call()
