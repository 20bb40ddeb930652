"""Who makes a call. Asked by every check of a request, and told when the answers are others."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple, Protocol

from comity_server.access.rights import Rights
from comity_server.errors import AuthorNotPrincipal, PermissionDenied
from comity_server.names import name_of, owns

UNIT_SEPARATOR: Final = "\x1f"


class Identity(NamedTuple):
    """Who somebody has been found to be."""

    principal: str = ""
    """Empty: nobody in particular."""
    expires: float | None = None
    """When it holds no more, in seconds since 1970."""


NOBODY = Identity()


class Guard(Protocol):
    """What a caller was let in by."""

    @property
    def asks(self) -> bool:
        """Whether it has to be shown who calls."""

    def rights(self, principal: str, namespace: str) -> Rights:
        """What a principal may do in a namespace as of now."""

    def administers(self, principal: str) -> bool:
        """Whether a principal may do as of now what concerns the server as a whole."""

    def check(self, caller: "Caller") -> None:
        """Raise Unauthenticated if the caller's identity does not hold any more."""

    def add(self, standing: "Standing") -> None:
        """From now on, ask it to look again at each change of what is allowed, and when its caller's identity ends."""

    def discard(self, standing: "Standing") -> None:
        """Do not ask it any more."""


class Caller:
    """Who makes one call, and may do what.

    Args:
        identity: who it is.
        guard: who knows what it may do.
        proof: what it has shown, by which it can be told later whether the identity still holds.
    """

    __slots__ = ("guard", "identity", "principal", "proof")

    def __init__(self, identity: Identity, guard: Guard, proof: object = None) -> None:
        self.identity = identity
        self.principal = identity.principal
        self.guard = guard
        self.proof = proof

    def rights(self, namespace: str) -> Rights:
        """What it may do in a namespace as of now."""
        return self.guard.rights(self.principal, namespace)

    def administer(self) -> None:
        """Raise PermissionDenied if it may not administer every namespace, and with them the server."""
        if not self.guard.administers(self.principal):
            raise PermissionDenied(self.principal, "ADMIN", "*")

    def check(self) -> None:
        """Raise Unauthenticated if its identity does not hold any more."""
        self.guard.check(self)

    def author(self, said: str) -> str:
        """The author of what it writes: the principal, or one that is said and is the principal's. Of those who may
        call without showing who they are, it is none, or one that says so: `anonymous`, `anonymous/…`.

        Raises AuthorNotPrincipal.
        """
        if not self.guard.asks:
            return said
        if said and not owns(self.principal, said):
            raise AuthorNotPrincipal(name_of(self.principal), said)
        return said or self.principal

    def client(self, said: str) -> str:
        """By what name the outcomes of a client's requests are remembered: nobody is given those of another principal's
        clients, whatever the names that they say. A principal's name has no unprintable characters."""
        return f"{name_of(self.principal)}{UNIT_SEPARATOR}{said}" if self.guard.asks and said else said

    @contextmanager
    def standing(self, still: Callable[[], None], end: Callable[[Exception], None]) -> Iterator[None]:
        """For a call that lasts: `end` it, with the reason, as soon as `still` or its identity's check raises.

        Raises Unauthenticated if its identity holds no more to begin with.
        """
        self.check()  # it may have been let in some time ago
        standing = Standing(self, still, end)
        self.guard.add(standing)
        try:
            yield
        finally:
            self.guard.discard(standing)


class Standing:
    """A call that lasts while it is allowed."""

    __slots__ = ("_end", "_still", "caller")

    def __init__(self, caller: Caller, still: Callable[[], None], end: Callable[[Exception], None]) -> None:
        self.caller = caller
        self._still = still
        self._end = end

    def look(self) -> None:
        """End the call if it is allowed no more."""
        try:
            self.caller.check()
            self._still()
        except Exception as error:  # noqa: BLE001 - whatever it is, what cannot be checked must not go on
            self._end(error)
