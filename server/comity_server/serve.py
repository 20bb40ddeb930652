"""`comity serve`: from the command line to a running server, and to its end."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import structlog

from comity_server import ending, open_files, workers
from comity_server.access import exposure
from comity_server.access.files import FileError
from comity_server.access.setup import Access
from comity_server.errors import StateError
from comity_server.failures import Failed
from comity_server.hangup import on_hangup
from comity_server.listening import ListenError, Serving
from comity_server.notifying import notify_ready
from comity_server.options import EPILOG, given, settings_options
from comity_server.server import Server
from comity_server.settings import Settings, SettingsError
from comity_server.sources import load, unknown
from comity_server.stores.protocol import Store
from comity_server.stores.url import open_store
from comity_server.tasks import tell_of_defects
from comity_server.telemetry import logs

if sys.platform == "win32" or sys.implementation.name != "cpython":
    new_event_loop = asyncio.new_event_loop
else:
    from uvloop import new_event_loop


log = structlog.get_logger(__name__)

# What a write makes is freed at once or kept for long, and hardly ever in circles: the default would look for those
# after every 700 things that are kept, which costs a sixth of the time.
COLLECT_AFTER = (10_000, 20, 50)


class UsageError(click.ClickException):
    """The command line or a setting is wrong."""

    exit_code = 2


@click.command("serve", epilog=EPILOG, context_settings={"max_content_width": 120})
@settings_options
def command(config: Path | None, **options: Any) -> None:
    """Run a server until SIGTERM or SIGINT; a second one ends it at once.

    Writes `listening on HOST:PORT` to standard output for each address when it serves, and its log to standard error.
    """
    try:
        settings = load(given(options), config)
        store = store_of(settings)
    except SettingsError as error:
        raise UsageError(str(error)) from None
    except ValueError as error:
        raise UsageError(f"store: {error}") from None
    if settings.workers > 1:
        try:
            workers.check(settings)
        except ValueError as error:
            raise UsageError(f"workers: {error}") from None
    try:
        warnings = _check_access(settings)
    except ListenError as error:
        raise click.ClickException(str(error)) from None
    except ValueError as error:
        raise UsageError(str(error)) from None
    logs.configure(settings.log_level, settings.log_format)
    for name, meant in unknown(os.environ):
        # No more than a warning: the environment is shared with others, who may have variables of that name.
        log.warning("a variable that is no setting", name=name, **({"meant": meant} if meant else {}))

    def serving(addresses: Sequence[str], health: Sequence[str]) -> None:
        if (lacks := exposure.missing(settings)) and (open_to := exposure.exposed(settings)):
            log.warning("others can reach the server, which is insecure", addresses=open_to, without=lacks)
        if settings.jwks is not None and not settings.jwt_audience:
            log.warning("JWTs are taken that were made for others: no jwt_audience is set")
        if exposure.shows_metrics(settings):
            names = exposure.names_namespaces(settings)
            log.warning("others can read the metrics", address=settings.metrics_listen, metrics_namespaces=names)
        for warning in warnings:
            log.warning("the policy may not say what it is meant to", warning=warning)
        _announce(addresses, health)
        notify_ready()

    try:
        if settings.workers > 1:
            code = asyncio.run(workers.serve(settings, serving))
            if code:
                raise click.exceptions.Exit(code)
            return
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(serve(settings, store, serving))
    except SettingsError as error:
        raise UsageError(str(error)) from None
    except ListenError as error:
        raise click.ClickException(str(error)) from None
    except workers.WorkerError as error:
        raise Failed(str(error), error.code) from None
    except FileError as error:  # it has become wrong since it was looked at
        raise UsageError(str(error)) from None
    except StateError as error:
        raise click.ClickException(error.message) from None


def _check_access(settings: Settings) -> Sequence[str]:
    """What the policy can hardly mean. Raises ValueError if a file that the settings of access name is wrong, or if
    others could reach a server without TLS or without authentication that is not said to be `insecure`;
    ListenError."""
    access = Access(settings)
    lacks = exposure.missing(settings)
    if lacks and not settings.insecure and (open_to := exposure.exposed(settings)):
        raise ValueError(
            f"others than this machine could reach {', '.join(open_to)}, and there is no {' and no '.join(lacks)}. "
            "Set it up, listen on 127.0.0.1, or say --insecure to serve all the same"
        )
    return access.warnings()


def store_of(settings: Settings) -> Store:
    """The store that the settings name, not yet opened. Raises ValueError."""
    return open_store(
        settings.store,
        settings.limits(),
        wait_replicas=settings.redis_wait_replicas,
        require_durable=settings.require_durable,
    )


def _announce(addresses: Sequence[str], health: Sequence[str]) -> None:
    lines = [f"health on {address}" for address in health] + [f"listening on {address}" for address in addresses]
    print("\n".join(lines), flush=True)


async def serve(settings: Settings, store: Store, serving: Serving, worker: int = 0) -> None:
    """Serve until a signal to stop, then drain. `worker`: which of several processes this is, from 1."""
    gc.set_threshold(*COLLECT_AFTER)
    asyncio.get_running_loop().set_exception_handler(tell_of_defects)
    seconds = ending.seconds(settings)
    stopped = _stop_signal(seconds)

    def stop() -> None:
        ending.within(seconds)
        stopped.set()

    open_files.allow(settings.max_connections * (len(settings.listen) + len(settings.health_listen)))
    server = Server(settings, store, worker=worker)
    on_hangup(server.reload, None if worker else stop)  # whoever starts workers tells them when to stop
    await server.start()
    serving(server.addresses, server.health_addresses)
    await stopped.wait()
    await server.stop()
    ending.soon()


def _stop_signal(seconds: float) -> asyncio.Event:
    """An event that the first SIGTERM or SIGINT sets. The second one ends the process as if nobody handled it, and so
    does the end of these seconds."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    signals = (signal.SIGTERM, signal.SIGINT)

    def stop(*_: object) -> None:
        ending.within(seconds)
        for number in signals:
            signal.signal(number, signal.SIG_DFL)
        loop.call_soon_threadsafe(stopped.set)

    for number in signals:
        try:
            loop.add_signal_handler(number, stop)
        except NotImplementedError:  # on Windows
            signal.signal(number, stop)
    return stopped


if __name__ == "__main__":
    command()
