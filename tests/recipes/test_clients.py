"""What recipes and agents are given to work with: a client of their own kind, and nothing else."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import comity.sync
import comity.sync.recipes
from comity import Client, recipes
from comity.agents import Agent, Directory, Supervisor, Workflow
from tests.servers import Server

MADE: list[tuple[str, dict[str, int]]] = [
    ("Lock", {}),
    ("Semaphore", {"limit": 2}),
    ("Election", {}),
    ("Barrier", {"parties": 2}),
    ("Queue", {}),
    ("Counter", {}),
    ("CircuitBreaker", {}),
]
AGENTS: list[Callable[[Any], object]] = [partial(Agent, name="a"), partial(Supervisor, name="a"), Directory]


@pytest.mark.parametrize(("name", "options"), MADE)
async def test_recipes_take_a_client_of_their_own_kind(
    server: Server, namespace: str, state: Client, name: str, options: dict[str, int]
) -> None:
    there, here = getattr(recipes, name), getattr(comity.sync.recipes, name)
    with comity.sync.connect(server.address, namespace=namespace) as plain:
        with pytest.raises(TypeError) as caught:
            there(plain, "a", **options)
        assert str(caught.value) == (
            "state must be a comity.Client, not comity.sync.Client; "
            "for a comity.sync client there is comity.sync.recipes"
        )
        assert here(plain, "a", **options).name == "a"
    with pytest.raises(TypeError) as caught:
        here(state, "a", **options)
    assert str(caught.value) == (
        "state must be a comity.sync.Client, not comity.Client; for a comity.Client there is comity.recipes"
    )
    for wrong in (None, server.address, Client):
        with pytest.raises(TypeError, match=rf"state must be a comity\.Client, not {type(wrong).__name__}"):
            there(wrong, "a", **options)
        with pytest.raises(TypeError, match=rf"state must be a comity\.sync\.Client, not {type(wrong).__name__}"):
            here(wrong, "a", **options)


async def test_agents_take_a_client(server: Server, namespace: str, state: Client) -> None:
    async def step(_: object) -> None:
        """Nothing."""

    workflow = Workflow("a", step)
    with comity.sync.connect(server.address, namespace=namespace) as plain:
        for wrong, said in ((plain, "comity.sync.Client"), (None, "NoneType"), (server.address, "str")):
            for made in AGENTS:
                with pytest.raises(TypeError, match=f"state must be a comity.Client, not {said}$"):
                    made(wrong)
            with pytest.raises(TypeError, match=f"state must be a comity.Client, not {said}$"):
                await workflow.run(wrong, "r")  # type: ignore[arg-type]
    assert [entry async for entry in state.list()] == []
