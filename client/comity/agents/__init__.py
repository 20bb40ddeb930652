"""Agents that work together, are supervised, and run workflows: docs/agents.md and docs/workflows.md have their keys.

from comity.agents import Agent, Role

async with Agent(state, "writer-1", role="writer") as agent:
    async for message in agent.inbox():
        await agent.handoff(Role("editor"), {"draft": write(message.body)})
"""

from .agent import Agent
from .children import Child, ChildState, ChildStatus
from .errors import AgentExists, HandoffFailed, ItemFailed, MapDiffers, RestartLimitExceeded, SupervisorExists
from .handoff import Handoff, HandoffMessage, HandoffStatus
from .layout import Role
from .memory import Memory, MemoryTransaction
from .message import Message
from .outcome import MapError, Outcome
from .presence import Directory, Presence, PresenceChange, PresenceEvent
from .restarts import Restart, Strategy
from .supervisor import Supervisor
from .workflow.context import Results, RunContext, RunKeys, StepContext
from .workflow.errors import RunDiffers, RunIsHeld, StepFailure, WorkflowError, WorkflowFailed
from .workflow.plan import Step, each, parallel, sequence, step, when
from .workflow.status import RunState, RunStatus, StepState, StepStatus
from .workflow.workflow import Workflow

__all__ = [
    "Agent",
    "AgentExists",
    "Child",
    "ChildState",
    "ChildStatus",
    "Directory",
    "Handoff",
    "HandoffFailed",
    "HandoffMessage",
    "HandoffStatus",
    "ItemFailed",
    "MapDiffers",
    "MapError",
    "Memory",
    "MemoryTransaction",
    "Message",
    "Outcome",
    "Presence",
    "PresenceChange",
    "PresenceEvent",
    "Restart",
    "RestartLimitExceeded",
    "Results",
    "Role",
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
    "Strategy",
    "Supervisor",
    "SupervisorExists",
    "Workflow",
    "WorkflowError",
    "WorkflowFailed",
    "each",
    "parallel",
    "sequence",
    "step",
    "when",
]
