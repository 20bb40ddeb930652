"""A client of Comity."""
