"""Leases: what lives only while somebody keeps it alive."""
