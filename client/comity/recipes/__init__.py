"""Ways to work together, made of nothing but reads, transactions, watches and leases: docs/recipes.md has their keys.

from comity.recipes import Lock

async with Lock(state, "deploy") as lock:
    await state.put("version", 7, guard=lock.guard)
"""

from .barrier import Barrier
from .breaker import CircuitBreaker, CircuitOpen, CircuitState
from .counter import Counter
from .election import Election, Leader
from .item import Item
from .lock import Lock
from .queue import DeadLetter, Queue, QueueSize
from .semaphore import Semaphore

__all__ = [
    "Barrier",
    "CircuitBreaker",
    "CircuitOpen",
    "CircuitState",
    "Counter",
    "DeadLetter",
    "Election",
    "Item",
    "Leader",
    "Lock",
    "Queue",
    "QueueSize",
    "Semaphore",
]
