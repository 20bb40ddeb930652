"""The keys of a queue, also for who looks at one by other ways than `Queue`. docs/recipes.md has them."""

import re
from typing import Final

from comity.checks import check_count

__all__ = ["PRIORITIES", "QueueKeys"]

PRIORITIES: Final = 999  # from minus as many
CLAIM: Final = "/claim"
LINE: Final = re.compile(rf"([0-9]{{4}}-[0-9]{{16}})({CLAIM})?")


class QueueKeys:
    """The keys of a queue."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.prefix = f"queues/{name}/"
        self.tail = f"{self.prefix}tail"
        self.lines = f"{self.prefix}line/"
        self.items = f"{self.prefix}items/"
        self.dead_letters = f"{self.prefix}dead/"

    @staticmethod
    def id(priority: int, number: int) -> str:
        """Ids have the order in which items are to be claimed: by priority, the higher first, and then by number."""
        return f"{PRIORITIES - check_count('priority', priority, -PRIORITIES, PRIORITIES):04}-{number:016}"

    def line(self, id: str) -> str:
        """How often the item was claimed. It is in the queue as long as this is there."""
        return self.lines + id

    def claim(self, id: str) -> str:
        """Who has claimed it. It is free while this is not there."""
        return self.lines + id + CLAIM

    def item(self, id: str) -> str:
        """What was put."""
        return self.items + id

    def dead(self, id: str) -> str:
        """What was put, once it has failed too often."""
        return self.dead_letters + id

    def buried(self, key: str) -> str | None:
        """The id in a key under `dead_letters`; None: it is no key of a queue."""
        found = LINE.fullmatch(key.removeprefix(self.dead_letters))
        return None if found is None or found[2] else found[1]

    def parse(self, key: str) -> tuple[str, bool] | None:
        """The id in a key under `lines`, and whether it is that of a claim; None: it is no key of a queue."""
        found = LINE.fullmatch(key.removeprefix(self.lines))
        return None if found is None else (found[1], found[2] is not None)
