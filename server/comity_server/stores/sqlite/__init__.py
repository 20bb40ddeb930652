"""The store in memory with a journal in SQLite: what it shows is on disk before. A start loads tables."""
