"""One of the processes of `comity bench`: told what to do by a line of JSON, it says how far it is by others.

It says {"ready": true} when it is connected, begins when it is told to go by an empty line, says {"done": N} now and
then, and in the end what came of it. It ends with whoever started it, since its standard input ends then.
"""

import asyncio
import json
import signal
import sys
from typing import Any, Final

from comity.connecting import connect

from .work import Work

EVERY_SECONDS: Final = 0.2


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


async def main() -> None:
    told = json.loads(sys.stdin.readline())
    async with connect(told["address"], namespace=told["namespace"], timeout=told["timeout"]) as client:
        work = Work(client, told["mix"], told["keys"], told["value_bytes"], told["number"])
        await client.wait_for_ready()
        say(ready=True)
        await asyncio.to_thread(sys.stdin.readline)
        running = asyncio.ensure_future(work.run(told["tasks"], told["seconds"]))
        while not running.done():
            await asyncio.wait([running], timeout=EVERY_SECONDS)
            say(done=work.done())
        took = await running
    found = {kind: {"longest": times.longest, "buckets": list(times.buckets())} for kind, times in work.times.items()}
    say(took=took, times=found, errors=work.errors)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which the terminal sends to all of them: the command ends them
    asyncio.run(main())
