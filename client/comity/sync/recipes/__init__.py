"""The recipes without async: `comity.recipes`, for plain threads.

from comity.sync.recipes import Lock

with Lock(state, "deploy") as lock:
    state.put("version", 7, guard=lock)

A block cannot be cancelled here. Whoever has lost what it holds is told by `held` and `check`, by guarded writes, and
at the end of the block: LeaseLost.
"""

from comity.recipes import CircuitOpen, CircuitState, DeadLetter, Leader, QueueSize

from .barrier import Barrier
from .breaker import CircuitBreaker
from .counter import Counter
from .holders import Election, Lock, Semaphore
from .queue import Item, Queue

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
