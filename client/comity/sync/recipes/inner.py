"""What the recipes of this package are made with: the asynchronous client in the one that they are given."""

from comity import client
from comity.checks import check_client
from comity.sync.client import Client

__all__ = ["inner"]


def inner(state: Client) -> client.Client:
    """The asynchronous client. Raises TypeError for what is no client of comity.sync."""
    return check_client(state, Client, "for a comity.Client there is comity.recipes")._async
