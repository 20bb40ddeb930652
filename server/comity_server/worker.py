"""One of the processes of `comity serve --workers N`. It is started by `comity_server.workers`, and ends with it."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import structlog

from comity_server.access.files import FileError
from comity_server.errors import StateError, Unavailable
from comity_server.listening import ListenError
from comity_server.serve import new_event_loop, serve, store_of
from comity_server.settings import Settings, SettingsError
from comity_server.telemetry import logs


def main() -> int:
    told = json.loads(sys.stdin.buffer.readline())
    settings = Settings(**json.loads(told["settings"]))
    logs.configure(settings.log_level, settings.log_format)
    structlog.contextvars.bind_contextvars(worker=told["worker"])
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_serve(settings, told["worker"]))
    except (ListenError, SettingsError) as error:
        _say(error=str(error))
        return 1
    except FileError as error:  # the others go on with what it was before, so this one has time
        _say(error=str(error), unavailable=True)
        return 1
    except StateError as error:
        _say(error=error.message, unavailable=isinstance(error, Unavailable))
        return 1
    return 0


async def _serve(settings: Settings, worker: int) -> None:
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), _parent_ended)

    def serving(addresses: Sequence[str], health: Sequence[str]) -> None:
        _say(addresses=list(addresses), health=list(health))

    await serve(settings, store_of(settings), serving, worker)


def _parent_ended() -> None:
    """Stop, as at a signal; if that is under way already, at once."""
    asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
    os.kill(os.getpid(), signal.SIGTERM)


def _say(**what: Any) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody listens any more: `_parent_ended` follows
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
