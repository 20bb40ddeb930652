"""The servers that are measured, each a process of its own, and how each is spoken to."""
