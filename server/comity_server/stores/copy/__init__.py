"""Copies namespaces from one store to another: all that can be read of them, and all that is remembered."""
