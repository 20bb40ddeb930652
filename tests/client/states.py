"""Writes and reads that tests of whole states are made of."""

from comity import Client, Entry, Put

__all__ = ["fill", "value", "values"]


async def fill(state: Client, **written: object) -> int:
    """Write all of these in one commit, and return its revision."""
    return (await state.transact(then=[Put(key, value) for key, value in written.items()])).revision


async def values(state: Client, revision: int = 0) -> dict[str, object]:
    """All keys with their values, now or at a revision."""
    return {entry.key: entry.value async for entry in state.list(revision=revision)}


def value(entry: Entry | None) -> object:
    """The value of an entry; None of an absent one."""
    return None if entry is None else entry.value
