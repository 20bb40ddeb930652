"""Who wrote what can still be read, and why, where the commit that says so was compacted."""

from collections.abc import Iterable

from comity_server.model import Commit, Provenance
from comity_server.record import MOD_REVISION, VERSION, Record

_Said = tuple[str, str, str]


class Origins:
    """By revision, with how many entries of it are left. A commit that said nothing of itself is not remembered."""

    def __init__(self) -> None:
        self._origins: dict[int, tuple[_Said, int]] = {}
        self._last: _Said = ("", "", "")

    def get(self, revision: int) -> Provenance | None:
        origin = self._origins.get(revision)
        return Provenance(*origin[0]) if origin is not None else None

    def keep(self, commit: Commit, entries: int) -> bool:
        """Remember a commit for so many entries, if it said anything. Returns whether it did."""
        return self.load(commit.revision, Provenance(commit.author, commit.message, commit.trace_parent), entries)

    def load(self, revision: int, provenance: Provenance, entries: int) -> bool:
        """The same, of a commit that is known by what it said alone."""
        said = (*provenance,)
        if not entries or not any(said):
            return False
        if said == self._last:  # most commits in a row say the same: then they share it
            said = self._last
        self._last = said
        self._origins[revision] = (said, entries)
        return True

    def drop(self, records: Iterable[Record]) -> list[int]:
        """Entries are gone. Returns the revisions of which none is left."""
        gone = []
        for record in records:
            revision = record[MOD_REVISION]
            origin = self._origins.get(revision)
            if origin is None or not record[VERSION]:
                continue
            said, entries = origin
            if entries > 1:
                self._origins[revision] = (said, entries - 1)
            else:
                gone.append(revision)
                del self._origins[revision]
        return gone
