"""The server of Comity."""
