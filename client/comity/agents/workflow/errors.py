"""What can go wrong with a workflow, beside what the client raises.

ComityError
└── WorkflowError
    ├── RunIsHeld       another runner has the run
    ├── RunDiffers      the run was begun with another plan or another input
    └── WorkflowFailed  steps failed; says which, why, and what was reached
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import grpc

from comity.errors import ComityError

__all__ = ["RunDiffers", "RunIsHeld", "StepFailure", "WorkflowError", "WorkflowFailed"]


class WorkflowError(ComityError):
    """The base of the errors of workflows."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION


class RunIsHeld(WorkflowError):
    """Another runner has the run, and lives. Also one that was killed, until its lease has run out. metadata has the
    `workflow`, the `run_id`, and the runner's `host`, `pid` and `lease_id`."""


class RunDiffers(WorkflowError):
    """The run was begun with another plan (reason PLAN_CHANGED) or another input (INPUT_CHANGED), so that what it has
    reached may not be what this one would have. metadata has the `workflow` and the `run_id`."""


class StepFailure(NamedTuple):
    """How a step failed: the last of its attempts."""

    type: str  # the name of the exception's type: `ValueError`
    message: str  # up to 1,000 characters

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


class WorkflowFailed(WorkflowError):
    """Steps failed, and the run has ended. To run it again is to try them again; what is done is not done again.

    failures: of each step that failed; for an item of an `each` the name is `STEP[INDEX]`, and for what decides (the
        condition of a `when`, the `over` of an `each`) it is that one's name.
    results: of the steps that are done.

    The exception of the first that failed is the `__cause__`.
    """

    def __init__(
        self,
        message: str = "",
        *,
        failures: Mapping[str, StepFailure] | None = None,
        results: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, reason="STEP_FAILED", metadata=metadata)
        self.failures = dict(failures or {})
        self.results = dict(results or {})
