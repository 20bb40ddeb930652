"""Layers of agents, each of which takes up what the layer before it wrote, as a version of its own."""

import asyncio

import comity
from comity import Client, Event
from tests.scenarios.places import Place

LAYERS, AGENTS, ROUNDS = 5, 5, 4


async def test_25_agents_in_5_layers_propagate_versioned_state(shared: Place, world: Client) -> None:
    """Each agent of a layer writes round R when it has seen all of the layer before it write it; what comes out of the
    last layer names every version that it stands on."""

    async def first(agent: int, state: Client) -> None:
        for number in range(1, ROUNDS + 1):
            await state.put(f"layer/0/{agent}", {"round": number, "from": []})

    async def follow(layer: int, agent: int, state: Client) -> None:
        heard: dict[int, list[dict[str, int]]] = {number: [] for number in range(1, ROUNDS + 1)}
        done = 0
        async for event in state.watch(f"layer/{layer - 1}/", from_revision=1):
            assert isinstance(event, Event)
            assert event.entry.version == event.entry.value["round"]  # none was left out, and none overtaken
            heard[event.entry.value["round"]].append({"revision": event.revision, "version": event.entry.version})
            while done < ROUNDS and len(heard[done + 1]) == AGENTS:
                done += 1
                await state.put(f"layer/{layer}/{agent}", {"round": done, "from": heard[done]}, if_version=done - 1)
            if done == ROUNDS:
                return

    async def run(layer: int, agent: int) -> None:
        author = f"agent-{layer}-{agent}"
        async with comity.connect(shared.address, namespace=world.namespace, author=author, timeout=60) as state:
            await (follow(layer, agent, state) if layer else first(agent, state))

    async with asyncio.timeout(60):
        await asyncio.gather(*(run(layer, agent) for layer in range(LAYERS) for agent in range(AGENTS)))
    for layer in range(LAYERS):
        entries = await world.list(f"layer/{layer}/").all()
        assert [entry.version for entry in entries] == [ROUNDS] * AGENTS
        for entry in entries:
            assert entry.value["round"] == ROUNDS
            assert len(entry.value["from"]) == (AGENTS if layer else 0)
            assert all(one["version"] == ROUNDS and one["revision"] < entry.mod_revision for one in entry.value["from"])
    assert (await world.namespace_info()).revision == LAYERS * AGENTS * ROUNDS
    authors = {commit.author async for commit in world.history()}
    assert authors == {f"agent-{layer}-{agent}" for layer in range(LAYERS) for agent in range(AGENTS)}
