"""Log lines: structured, on standard error, for people on a terminal and as JSON for programs."""

import logging
import sys
from typing import Final, Literal

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import Processor

from comity_server.telemetry import trail

# What gRPC calls errors, and is the client's doing. Only their text tells: so grpcio 1.75.1 and 1.85.1 word them.
# Should another one word them anew, they are logged.
NO_NEWS: Final = ("ExecuteBatchError raised in core by servicer method", "Invalid encoding on ")
OWN: Final = "comity_server"  # the loggers of this package
OF_CLIENTS: Final = "opentelemetry.trace"  # warns of what a client says of its trace, in the client's words
Format = Literal["auto", "console", "json"]


def configure(level: str = "info", style: Format = "auto") -> None:
    """Send everything that is logged, by libraries too, to standard error in one form.

    `level` is the least that is worth a line, of libraries `info` or above; `style` auto means console on a terminal
    and JSON elsewhere.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        trail.merge,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor]  # tracebacks without the values of variables, which are the clients'
    if style == "console" or (style == "auto" and sys.stderr.isatty()):
        plain = structlog.dev.plain_traceback
        last = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    else:
        tracebacks = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
        last = [tracebacks, structlog.processors.JSONRenderer()]

    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
        )
    )
    handler.addFilter(_is_news)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    least = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(max(least, logging.INFO))
    logging.getLogger(OWN).setLevel(least)
    logging.getLogger(OF_CLIENTS).setLevel(logging.ERROR)


def _is_news(record: logging.LogRecord) -> bool:
    """Not that a client went away before its answer, nor that its metadata is no text."""
    return not (record.name.startswith("grpc") and record.getMessage().startswith(NO_NEWS))
