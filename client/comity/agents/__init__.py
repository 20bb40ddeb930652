"""Agents that share state: workflows whose progress survives their process."""

from .workflow import Workflow
from .workflow_context import Results, RunContext, RunKeys, StepContext
from .workflow_errors import RunDiffers, RunIsHeld, StepFailure, WorkflowError, WorkflowFailed
from .workflow_plan import Step, each, parallel, sequence, step, when
from .workflow_status import RunState, RunStatus, StepState, StepStatus

__all__ = [
    "Results",
    "RunContext",
    "RunDiffers",
    "RunIsHeld",
    "RunKeys",
    "RunState",
    "RunStatus",
    "Step",
    "StepContext",
    "StepFailure",
    "StepState",
    "StepStatus",
    "Workflow",
    "WorkflowError",
    "WorkflowFailed",
    "each",
    "parallel",
    "sequence",
    "step",
    "when",
]
