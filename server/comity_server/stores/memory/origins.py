"""Who wrote what can still be read, and why, where the commit that says so was compacted."""

from collections.abc import Iterable, Iterator

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

    def all(self) -> Iterator[tuple[int, Provenance]]:
        """By revision."""
        for revision, (said, _) in self._origins.items():
            yield revision, Provenance(*said)

    def keep(self, commit: Commit, entries: int) -> Provenance | None:
        """Remember a commit for so many entries, if it said anything. Returns what it said."""
        said = Provenance(commit.author, commit.message, commit.trace_parent)
        return said if self.load(commit.revision, said, entries) else None

    def load(self, revision: int, provenance: Provenance, entries: int) -> bool:
        """The same, of a commit that is known by what it said alone. Returns whether it is remembered."""
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
