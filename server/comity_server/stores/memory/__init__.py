"""The store in memory: versions of keys with an index over them, a log of commits, and a judge of transactions."""
