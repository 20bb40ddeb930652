"""Workflows: steps whose progress is in the store. docs/workflows.md has their keys.

workflow (what a user runs) -> runner (does what is not done yet) -> context (what steps are given)
    -> records (what the store knows of a run), plan, status, errors
"""

from .workflow import Workflow

__all__ = ["Workflow"]
