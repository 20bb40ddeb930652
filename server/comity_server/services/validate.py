"""What a request may say: the rules of the contract, each beside the words that tell the caller what is wrong."""

import re
from collections.abc import Mapping
from typing import Final

from google.protobuf.duration_pb2 import Duration

from comity_server.errors import InvalidRequest, Violation
from comity_server.limits import Limits
from comity_server.services.status import VIOLATIONS

NAMESPACE: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
CHECKPOINT: Final = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
LABELS: Final = 64
LABEL_KEY_BYTES: Final = 63
LABEL_VALUE_BYTES: Final = 255
CONTENT_TYPE_BYTES: Final = 255
AUTHOR_BYTES: Final = 255
MESSAGE_BYTES: Final = 4096
CLIENT_BYTES: Final = 128
EPOCH_BYTES: Final = 128
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
DURATION_SECONDS: Final = 315_576_000_000


class Checks:
    """Collects what is wrong with one request: each method takes the path of a field and what it holds."""

    __slots__ = ("_violations", "limits")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._violations: list[Violation] = []

    def finish(self) -> None:
        """Raise InvalidRequest if anything was wrong."""
        if self._violations:
            raise InvalidRequest(*self._violations)

    def wrong(self, field: str, description: str) -> None:
        """Note a violation."""
        if len(self._violations) < VIOLATIONS:
            self._violations.append(Violation(field, description))

    def namespace(self, field: str, name: str) -> None:
        if not NAMESPACE.fullmatch(name):
            self.wrong(field, f"must match {NAMESPACE.pattern}" if name else "is required")

    def namespace_prefix(self, field: str, prefix: str) -> None:
        if prefix and not NAMESPACE.fullmatch(prefix):
            self.wrong(field, f"must be the beginning of a name that matches {NAMESPACE.pattern}")

    def checkpoint(self, field: str, name: str) -> None:
        if not CHECKPOINT.fullmatch(name):
            rule = "must be letters, digits, '.', '_' and '-', up to 128, with a letter in it"
            self.wrong(field, rule if name else "is required")

    def labels(self, field: str, labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        """The labels in the order of their keys."""
        if len(labels) > LABELS:
            self.wrong(field, f"must not be more than {LABELS}")
            return ()
        for key, value in labels.items():
            if not 0 < len(key.encode()) <= LABEL_KEY_BYTES or "\0" in key:
                self.wrong(field, f"a key must have 1 to {LABEL_KEY_BYTES} bytes, and no NUL in it: {key}")
            elif len(value.encode()) > LABEL_VALUE_BYTES or "\0" in value:
                self.wrong(field, f"must not have more than {LABEL_VALUE_BYTES} bytes, nor a NUL in it: {key}")
        return tuple(sorted(labels.items()))

    def key(self, field: str, key: str) -> None:
        if not key:
            self.wrong(field, "is required")
        elif len(key) > self.limits.key_bytes or "\0" in key or not key.isascii():
            self.text(field, key, self.limits.key_bytes)

    def prefix(self, field: str, prefix: str) -> None:
        self.text(field, prefix, self.limits.key_bytes)

    def text(self, field: str, text: str, max_bytes: int) -> None:
        if len(text) > max_bytes or (not text.isascii() and len(text.encode()) > max_bytes):
            self.wrong(field, f"must not be longer than {max_bytes} bytes")
        elif "\0" in text:
            self.wrong(field, "must not have a NUL in it")

    def value(self, field: str, value: bytes) -> None:
        if len(value) > self.limits.value_bytes:
            self.wrong(field, f"must not be larger than {self.limits.value_bytes} bytes")

    def content_type(self, field: str, content_type: str) -> None:
        if not content_type.isprintable() and CONTROL.search(content_type):
            self.wrong(field, "must not have control characters in it")
        else:
            self.text(field, content_type, CONTENT_TYPE_BYTES)

    def count(self, field: str, number: int) -> None:
        """A number that is 0 or more: a revision, a version, a size."""
        if number < 0:
            self.wrong(field, "must not be negative")

    def lease_id(self, field: str, lease_id: int) -> None:
        """A lease that there has to be."""
        if lease_id < 1:
            self.wrong(field, "must be 1 or more")

    def ttl(self, field: str, ttl: Duration) -> int:
        """How long a lease is to live, in µs."""
        if self.duration(field, ttl) is None:
            return 0
        return self.lease_micros(field, ttl.seconds * 1_000_000 + ttl.nanos // 1000)

    def lease_micros(self, field: str, ttl: int) -> int:
        """The same of so many µs."""
        least, most = self.limits.lease_ttl_least, self.limits.lease_ttl_most
        if not least * 1e6 <= ttl <= most * 1e6:
            self.wrong(field, f"must be from {least:g} to {most:g} s")
        return ttl

    def duration(self, field: str, duration: Duration) -> float | None:
        """The duration in seconds, or None if it is not a proper one."""
        seconds, nanos = duration.seconds, duration.nanos
        if abs(seconds) > DURATION_SECONDS or abs(nanos) > 999_999_999 or (seconds * nanos < 0):
            self.wrong(field, "is not a valid google.protobuf.Duration")
            return None
        return seconds + nanos / 1e9

    def page_size(self, field: str, size: int) -> int:
        """The number of entries that a page may have."""
        self.count(field, size)
        return min(size, self.limits.page_entries) if size > 0 else self.limits.page_entries
