"""Whether the server serves, by the health protocol of gRPC, without its generated code: it is two bytes."""

import asyncio

from . import errors
from .calls import Calls
from .retry import Retry

__all__ = ["wait_until_serving"]

OVERALL = b""  # a HealthCheckRequest whose `service` is empty
SERVING = b"\x08\x01"  # a HealthCheckResponse whose `status`, field 1, is 1


async def wait_until_serving(calls: Calls, timeout: float) -> None:
    """Return when the server says SERVING; ask until then, for `timeout` seconds in all."""
    clock = asyncio.get_running_loop().time
    retry = Retry(clock() + timeout, most=0.2)
    while True:
        try:
            return await _check(calls, retry.remaining(clock()))
        except errors.ComityError as error:
            await asyncio.sleep(retry.delay(error, clock()))


async def _check(calls: Calls, timeout: float) -> None:
    answer = await calls.attempt(lambda to: to.health, OVERALL, timeout)
    if answer != SERVING:
        raise errors.Unavailable("the server can be reached, but does not serve now", reason="NOT_SERVING")
