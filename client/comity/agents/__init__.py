"""Agents that work together, and are supervised: docs/agents.md has their keys.

from comity.agents import Agent, Role

async with Agent(state, "writer-1", role="writer") as agent:
    async for message in agent.inbox():
        await agent.handoff(Role("editor"), {"draft": write(message.body)})
"""

from .agent import Agent
from .children import Child, ChildState, ChildStatus
from .errors import AgentExists, HandoffFailed, ItemFailed, MapError, RestartLimitExceeded, SupervisorExists
from .handoff import Handoff, HandoffMessage, HandoffStatus
from .layout import Role
from .mapping import Outcome
from .memory import Memory, MemoryTransaction
from .message import Message
from .presence import Directory, Presence, PresenceChange, PresenceEvent
from .restarts import Restart, Strategy
from .supervisor import Supervisor

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
    "Role",
    "Strategy",
    "Supervisor",
    "SupervisorExists",
]
