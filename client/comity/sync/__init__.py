"""The client without async: the same methods, which wait for their end. For plain threads, of any number.

with comity.sync.connect("localhost:7171", namespace="research", author="planner") as state:
    state.put("plan", {"step": 1})
"""

from .cell import Cell
from .client import Client
from .connect import connect
from .lease import Lease, Leasing
from .listing import BlameListing, DiffListing, HistoryListing, Listing
from .transaction import Transaction
from .watch import Watch

__all__ = [
    "BlameListing",
    "Cell",
    "Client",
    "DiffListing",
    "HistoryListing",
    "Lease",
    "Leasing",
    "Listing",
    "Transaction",
    "Watch",
    "connect",
]
