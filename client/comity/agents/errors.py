"""The errors of agents. All of them are in the tree of `comity.errors`.

ComityError
├── AlreadyExists
│   ├── AgentExists            an agent of this name lives
│   └── SupervisorExists       a supervisor of this name lives
├── HandoffFailed              nobody could do it, or whoever did it gave up for good
├── MapDiffers                 a map was begun with other inputs
├── RestartLimitExceeded       children end faster than a supervisor may restart them
└── MapError                   some items of a map failed: in `outcome`, with what it has
"""

import grpc

from comity.errors import AlreadyExists, ComityError

__all__ = [
    "AgentExists",
    "HandoffFailed",
    "ItemFailed",
    "MapDiffers",
    "RestartLimitExceeded",
    "SupervisorExists",
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
    """Children ended faster than the supervisor may restart them, or the process of one ended before it got to its
    function (reason CANNOT_START): it has stopped all. The `__cause__` is how the last
    one ended, if that is known."""

    default_code = grpc.StatusCode.ABORTED


class ItemFailed(ComityError):
    """An item of a map failed, as often as it may be tried. `reason` is the type of the last exception, or DEAD if the
    worker died each time."""

    default_code = grpc.StatusCode.ABORTED


class MapDiffers(ComityError):
    """A map was begun with other inputs (reason INPUTS_CHANGED), so that what was reached is not what this one would
    have. metadata has its `id`, and the `index` of the first input that differs, is missing, or is one too many."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION
