"""Which of the keys that a recipe finds live by a lease, and so stand for somebody who is there."""

from collections.abc import Iterable

from comity.client import Client
from comity.errors import NotFound
from comity.model import Entry

__all__ = ["Living"]


class Living:
    """Tells keys of living holders from those that a restore, a merge or a fork has left, and nobody holds.

    What a restore or a merge writes lives by no lease. A fork shows the keys that its parent had, with lease ids that
    mean nothing in it: those that were written up to the revision that it was forked at.
    """

    def __init__(self, state: Client) -> None:
        self._state = state
        self._inherited: int | None = None

    async def among(self, entries: Iterable[Entry], *, anew: bool = True) -> list[Entry]:
        """Those of the entries that live by a lease of this namespace.

        anew: ask where the namespace was forked, as it may have been deleted and made anew since that was last asked.
            False is for entries out of a watch, which begins with a Resync where that has happened.
        """
        if anew:
            self._inherited = None
        leased = [entry for entry in entries if entry.lease_id]
        if leased and self._inherited is None:
            try:
                self._inherited = (await self._state.namespace_info()).fork_revision
            except NotFound:  # deleted since: whatever was found is not there any more
                return []
        return [entry for entry in leased if entry.mod_revision > (self._inherited or 0)]
