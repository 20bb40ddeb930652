"""Workflows: steps whose progress is in the store. docs/workflows.md has their keys.

workflow (what a user runs) -> runner (does what is not done yet) -> context (what steps are given)
    -> records (what the store knows of a run), plan, status, errors
"""

from .context import Results, RunContext, RunKeys, StepContext
from .errors import RunDiffers, RunIsHeld, StepFailure, WorkflowError, WorkflowFailed
from .plan import Step, each, parallel, sequence, step, when
from .status import RunState, RunStatus, StepState, StepStatus
from .workflow import Workflow

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
