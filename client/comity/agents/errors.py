"""The errors of agents. All of them are in the tree of `comity.errors`.

ComityError
├── AlreadyExists
│   ├── AgentExists            an agent of this name lives
│   └── SupervisorExists       a supervisor of this name lives
├── HandoffFailed              nobody could do it, or whoever did it gave up for good
├── RestartLimitExceeded       children end faster than a supervisor may restart them
└── MapError                   some items of a map failed
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import grpc

from comity.errors import AlreadyExists, ComityError

if TYPE_CHECKING:
    from .children import Child
    from .mapping import Outcome
    from .restarts import RestartLimit
    from .running import End

__all__ = [
    "AgentExists",
    "HandoffFailed",
    "ItemFailed",
    "MapError",
    "RestartLimitExceeded",
    "SupervisorExists",
    "too_many",
]


class AgentExists(AlreadyExists):
    """An agent of this name lives. metadata has its `name` and its `incarnation`."""


class SupervisorExists(AlreadyExists):
    """A supervisor of this name lives. metadata has its `name` and its `incarnation`."""


class HandoffFailed(ComityError):
    """A handoff has come to nothing. `reason` is REFUSED (a receiver said so, for good) or DEAD (it was tried as often
    as it may be); metadata has its `id`, `by` (the last one who held it, if known) and `attempts`."""

    default_code = grpc.StatusCode.ABORTED


class RestartLimitExceeded(ComityError):
    """Children ended faster than the supervisor may restart them: it has stopped all. The `__cause__` is how the last
    one ended, if that is known."""

    default_code = grpc.StatusCode.ABORTED


class ItemFailed(ComityError):
    """An item of a map failed, as often as it may be tried. `reason` is the type of the last exception, or DEAD if the
    worker died each time."""

    default_code = grpc.StatusCode.ABORTED


def too_many(child: "Child", end: "End", limit: "RestartLimit") -> RestartLimitExceeded:
    """The error of a child that ended once more than it may."""
    within = f" within {limit.within:g} s" if limit.within < math.inf else ", and nothing came of it,"
    error = RestartLimitExceeded(
        f"{child.name} has ended ({end.why}), and there were {limit.most} restarts{within} before",
        reason="RESTART_LIMIT_EXCEEDED",
        metadata={"child": child.name},
    )
    error.__cause__ = end.error
    return error


class MapError(ComityError):
    """Some items of a map failed. `results` are the outcomes of all, in the order of the inputs."""

    default_code = grpc.StatusCode.ABORTED

    def __init__(self, message: str = "", *, results: Sequence["Outcome"] = ()) -> None:
        super().__init__(message)
        self.results = tuple(results)
