"""What a benchmark is told."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """How to run.

    `quick` asks for the short form, which shows that everything works; its figures mean little. `folder` is where
    servers keep what they write: on a disk, for what is measured is often the disk. `peers` are words, one of which is
    in the name of every peer that is to be measured; none: all are.
    """

    quick: bool
    folder: Path
    peers: Collection[str] = ()
    asked: set[str] = field(default_factory=set)  # peers that there are

    def of(self, full: T, quick: T) -> T:
        """One of two sizes of something."""
        return quick if self.quick else full

    def wants(self, peer: str) -> bool:
        """Whether a peer is to be measured."""
        self.asked.add(peer)
        return not self.peers or any(word in peer for word in self.peers)
