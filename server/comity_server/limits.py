"""How much of anything one caller may have: the figures, and nothing else. Settings and the policy say their values."""

from typing import Final, NamedTuple

UNBOUNDED: Final = 1 << 42  # what a retention of 0 stands for: more than there will be, and in µs still 64 bits
MOST: Final = 10**12  # of what has no bound of its own


class Share(NamedTuple):
    """How many namespaces there may be whose names begin alike."""

    prefix: str
    """Empty: of all."""
    most: int


class Limits(NamedTuple):
    """Sizes in bytes, times in seconds."""

    key_bytes: int = 1024
    value_bytes: int = 1024 * 1024
    transaction_operations: int = 1000
    transaction_bytes: int = 4 * 1024 * 1024
    transaction_steps: int = 200_000  # keys and commits that it may look through, but for the last of its searches
    commit_events: int = 20_000  # what a prefix delete may change
    restore_events: int = 1_000_000  # what a restore or a merge may change
    page_entries: int = 1000
    page_bytes: int = 2 * 1024 * 1024
    result_bytes: int = 2_621_440  # what the reads of one transaction may answer
    previous_bytes: int = 1024 * 1024  # of the entries that a delete answers with
    namespace_keys: int = 5_000_000
    namespace_bytes: int = 4 * 1024 * 1024 * 1024
    namespaces: int = 100_000
    share: Share | None = None  # of these, what one has with those whose names begin like its own
    checkpoints: int = 10_000  # of one namespace
    lease_ttl_least: float = 1.0
    lease_ttl_most: float = 24 * 3600.0
    leases: int = 100_000  # of one namespace
    lease_keys: int = 10_000  # that live by one lease: they are deleted in one commit
    fork_depth: int = 64  # forks of forks: a read falls through so many
    request_window: float = 600.0  # how long the outcomes of a silent client are remembered
    request_clients: int = 1_000_000  # of one namespace, that may have outcomes remembered
    request_outcomes: int = 10_000  # of one client: beyond it what it awaits makes its writes wait, else the lowest go
    request_bytes: int = 64 * 1024 * 1024  # likewise, of what those outcomes answered
    request_total_bytes: int = 512 * 1024 * 1024  # likewise, of all clients of one namespace


class Retention(NamedTuple):
    """How much history a namespace keeps without being asked to forget it. Here a 0 is no more than a 0."""

    commits: int = 100_000
    age: float = 24 * 3600.0  # seconds
    history_bytes: int = 256 * 1024 * 1024
