"""What a benchmark is told."""

from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Options(NamedTuple):
    """How to run.

    `quick` asks for the short form, which shows that everything works; its figures mean little. `folder` is where
    servers keep what they write: on a disk, for what is measured is often the disk.
    """

    quick: bool
    folder: Path

    def of(self, full: T, quick: T) -> T:
        """One of two sizes of something."""
        return quick if self.quick else full
