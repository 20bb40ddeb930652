"""An agent has a round trip to plan and three ideas of how. It tries each on a fork of its own, and merges the best.

Run it with `python examples/three_ideas.py`: it starts a server, forks the state three times, lets the ideas work at
the same time, compares what they came to, and brings only the shortest trip back. What the others did is gone with
their forks, and the plan never shows anything half done.
"""

import asyncio
import math
from collections.abc import Callable
from itertools import combinations

import comity
from own_server import own_server

PLACES = {
    "depot": (0, 0),
    "mill": (60, 9),
    "quay": (14, 48),
    "farm": (71, 44),
    "school": (25, 12),
    "inn": (44, 61),
    "chapel": (8, 25),
    "market": (38, 35),
}

Trip = list[str]


def length(trip: Trip) -> int:
    """Metres there and back, in whole ones."""
    legs = zip(trip, [*trip[1:], trip[0]], strict=True)
    return round(sum(math.dist(PLACES[here], PLACES[there]) for here, there in legs))


def by_angle(trip: Trip) -> Trip:
    """Sweep around the middle, as the hand of a clock does."""
    x, y = (sum(place) / len(PLACES) for place in zip(*PLACES.values(), strict=True))
    swept = sorted(trip, key=lambda name: math.atan2(PLACES[name][1] - y, PLACES[name][0] - x))
    start = swept.index("depot")
    return swept[start:] + swept[:start]


def nearest_first(trip: Trip) -> Trip:
    """From each place to the nearest that is left."""
    made, left = [trip[0]], set(trip[1:])
    while left:
        made.append(min(left, key=lambda name: (math.dist(PLACES[made[-1]], PLACES[name]), name)))
        left.remove(made[-1])
    return made


def untangle(trip: Trip) -> Trip:
    """Turn around any stretch by which the trip becomes shorter, until there is none."""
    for start, end in combinations(range(1, len(trip) + 1), 2):
        turned = trip[:start] + trip[start:end][::-1] + trip[end:]
        if length(turned) < length(trip):
            return untangle(turned)
    return trip


IDEAS: dict[str, Callable[[Trip], Trip]] = {"by-angle": by_angle, "nearest-first": nearest_first, "untangle": untangle}


async def explore(fork: comity.Client, idea: str) -> int:
    """Work an idea out on its fork, and return the length of its trip."""
    stops = await fork.get("stops")
    assert stops is not None
    trip = IDEAS[idea](stops.value)
    await save(fork, trip, idea)
    return length(trip)


async def save(state: comity.Client, trip: Trip, why: str) -> None:
    await state.transact(then=[comity.Put("stops", trip), comity.Put("metres", length(trip))], message=why)


async def main(address: str) -> None:
    async with comity.connect(address, namespace="tour", author="planner") as plan:
        await plan.wait_for_ready()
        await save(plan, list(PLACES), "as listed")
        mark = await plan.checkpoint("before-ideas")

        forks = {idea: await plan.fork(f"tour-{idea}", mark) for idea in IDEAS}
        workers = [explore(fork.with_options(author=idea), idea) for idea, fork in forks.items()]
        lengths = dict(zip(forks, await asyncio.gather(*workers), strict=True))
        for idea, metres in lengths.items():
            print(f"{idea:<14} {metres} m")

        best = min(lengths, key=lambda idea: lengths[idea])
        done = await plan.merge(forks[best], message=f"{best} is the shortest")
        print(f"merged {best}: {done.put} keys put, revision {done.revision}")
        for fork in forks.values():
            await fork.delete_namespace()

        async for change in plan.diff(mark):
            print(f"{change.key}: {shown(change.before)} -> {shown(change.after)}")
        async for commit in plan.history():
            print(f"revision {commit.revision}  {commit.author}  {commit.message}")


def shown(entry: comity.Entry | None) -> str:
    assert entry is not None
    return " ".join(entry.value) if isinstance(entry.value, list) else str(entry.value)


if __name__ == "__main__":
    with own_server() as address:
        asyncio.run(main(address))
