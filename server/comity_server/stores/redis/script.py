"""Scripts that Redis runs: by their digests, and loaded if it has lost them."""

import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from typing import Any, Final

from redis.exceptions import NoPermissionError, NoScriptError, ResponseError

from comity_server.stores.redis.connection import Connection


class Script:
    """A Lua script, known by its digest."""

    def __init__(self, name: str) -> None:
        self.text = files("comity_server.stores.redis").joinpath("scripts", f"{name}.lua").read_text("utf-8")
        self.digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def refusal(self, error: ResponseError) -> NoPermissionError | None:
        """The error of a command of it that the user may not run. Redis 6.2 says only in which line that is."""
        said = str(error)
        if "ACL failure" in said:
            return NoPermissionError(said)
        if "user executing the script can't" not in said:
            return None
        line = re.search(r"user_script: ?(\d+)", said)
        names = re.findall(r"redis\.call\('(\w+)'", self.text.splitlines()[int(line[1]) - 1]) if line else []
        return NoPermissionError(f"in a script this user may not run the '{'|'.join(names)}' command")


TOUCH: Final = Script("touch")


async def evaluate(
    script: Script,
    names: Sequence[str],
    arguments: Sequence[Any],
    execute: Callable[..., Awaitable[Any]],
    redis: Connection,
) -> Any:
    """Run a script, by what executes a command, and have it loaded if Redis has lost it."""
    rest = (len(names), *names, *arguments)
    try:
        try:
            return await execute(redis, command=("EVALSHA", script.digest, *rest))
        except NoScriptError:
            return await execute(redis, command=("EVAL", script.text, *rest))
    except ResponseError as error:
        refusal = script.refusal(error)
        if refusal is None:
            raise
        raise refusal from error
