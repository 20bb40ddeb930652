"""Has stores over Redis do a part at a time what takes long, in so many parts that what comes in between is met."""

import pytest

from comity_server.stores.memory import namespace
from comity_server.stores.redis import compaction, portions, steps


def small_steps(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(namespace, "_COLLECTED", 20)
    patch.setattr(compaction, "CLAIM_SECONDS", 0.1)
    patch.setattr(steps, "PIECE", 1000)
    patch.setattr(steps, "ROWS", 7)
    patch.setattr(compaction, "SPARE", 3)
    patch.setattr(portions, "FIRST", 3)
    patch.setattr(portions, "FIELDS", 5)
    patch.setattr(portions, "ENTRIES", 3)
