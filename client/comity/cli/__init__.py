"""The command line: `comity get`, `comity put`, `comity watch`, `comity serve`, ..."""

from .main import main

__all__ = ["main"]
