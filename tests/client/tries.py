"""Which calls a connection's tries are made of, seen from inside of the client."""

from typing import Any

import pytest

from comity.channel import Connection

__all__ = ["noted"]


def noted(monkeypatch: pytest.MonkeyPatch, connection: Connection, service: str, method: str) -> list[str]:
    """Notes each stream of a method as "stream", and each unary call of the service of health as "call"."""
    tried: list[str] = []

    def note(of: object, name: str, what: str) -> None:
        call = getattr(of, name)

        def begin(*arguments: Any, **options: Any) -> Any:
            tried.append(what)
            return call(*arguments, **options)

        monkeypatch.setattr(of, name, begin)

    note(getattr(connection, service), method, "stream")
    note(connection, "health", "call")
    return tried
