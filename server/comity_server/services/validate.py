"""What a request may say: the rules of the contract, each beside the words that tell the caller what is wrong; and
whether who says it may do that."""

import re
from collections.abc import Mapping
from typing import Final

from google.protobuf.duration_pb2 import Duration

from comity_server.access.caller import Caller
from comity_server.access.rights import EVERYTHING, NOTHING, Access
from comity_server.errors import AuthorNotPrincipal, InvalidRequest, PermissionDenied, Violation
from comity_server.limits import Limits
from comity_server.names import NAMESPACE
from comity_server.services.status import VIOLATIONS
from comity_server.words import figure

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
    """Collects what is wrong with one request: each method takes the path of a field and what it holds.

    What names keys takes the access that is asked for, too, to those of the namespace that was checked last. A request
    for which nothing was asked is never let through.

    Args:
        limits: for what a request may ask.
        caller: whose request it is.
        namespace: the one that it is within, where that was checked before.
    """

    __slots__ = ("_denied", "_is_asked", "_name", "_violations", "caller", "limits", "rights")

    def __init__(self, limits: Limits, caller: Caller, namespace: str = "") -> None:
        self.limits = limits
        self.caller = caller
        self.rights = caller.rights(namespace) if namespace else NOTHING  # until it is told which
        self._name = namespace
        self._violations: list[Violation] = []
        self._denied: PermissionDenied | None = None
        self._is_asked = False

    @property
    def within(self) -> str:
        """The namespace of what is checked."""
        return self._name

    def finish(self) -> None:
        """Raise InvalidRequest if anything was wrong, or else PermissionDenied if the caller may not do it."""
        if self._violations:
            raise InvalidRequest(*self._violations)
        if self._denied is not None:
            raise self._denied
        if not self._is_asked and self.rights is not EVERYTHING:
            raise RuntimeError("a request was checked, and nothing was asked about its caller's rights")
        self._is_asked = False

    # Who may do it

    def everywhere(self, access: Access) -> None:
        """It is done to the whole of the namespace."""
        self._is_asked = True
        if not self.rights.may(access, ""):
            self._deny(access, "")

    def somewhere(self, access: Access) -> None:
        """It is done to nothing in particular: whoever may do any of what is named to any key of the namespace may."""
        self._is_asked = True
        if not self.rights.may_somewhere(access):
            self._lacks(" or ".join(str(each.name) for each in access))

    def anyone(self) -> None:
        """It is nobody's in particular: the answer shows what its caller may see."""
        self._is_asked = True

    def author(self, said: str) -> str:
        """The author of a write for which the request says one, or says none."""
        try:
            return self.caller.author(said)
        except AuthorNotPrincipal as denied:
            self._denied = self._denied or denied
            return said

    def _deny(self, access: Access, target: str, **where: str) -> None:
        lacks = [str(each.name) for each in access if not self.rights.may(each, target)]
        self._lacks(" and ".join(lacks), **where)

    def _lacks(self, access: str, **where: str) -> None:
        if self._denied is None:
            self._denied = PermissionDenied(self.caller.principal, access, self._name, **where)

    # What is said

    def wrong(self, field: str, description: str) -> None:
        """Note a violation."""
        if len(self._violations) < VIOLATIONS:
            self._violations.append(Violation(field, description))

    def namespace(self, field: str, name: str) -> None:
        """The namespace of what is checked from here on."""
        if not NAMESPACE.fullmatch(name):
            self.wrong(field, f"must match {NAMESPACE.pattern}" if name else "is required")
        else:
            self._name = name
            self.rights = self.caller.rights(name)

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

    def key(self, field: str, key: str, access: Access) -> None:
        if self.rights is not EVERYTHING:
            self._is_asked = True
            if not self.rights.may(access, key):
                self._deny(access, key, key=key)
        if not key:
            self.wrong(field, "is required")
        elif len(key) > self.limits.key_bytes or "\0" in key or not key.isascii():
            self.text(field, key, self.limits.key_bytes)

    def prefix(self, field: str, prefix: str, access: Access) -> None:
        if self.rights is not EVERYTHING:
            self._is_asked = True
            if not self.rights.may(access, prefix):
                self._deny(access, prefix, prefix=prefix)
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
            self.wrong(field, f"must be from {figure(least)} to {figure(most)} s")
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
