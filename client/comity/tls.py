"""How to connect by TLS: what a caller says of it."""

import re
from dataclasses import dataclass
from typing import Final

from . import files

__all__ = ["TLS"]

SERVER_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,253}")


@dataclass(frozen=True, slots=True)
class TLS:
    """How to connect by TLS. The files are PEM; they are read when a client is made, and again when they have changed.

    ca: the certificates that may have signed the server's. None: those that gRPC brings, of public authorities.
    cert, key: the client's own certificate, with those that lead to the one that signed it, and its private key: for a
        server that asks for them.
    server_name: that the server's certificate is to be for, instead of the host of its address.

    Raises TypeError and ValueError for what is no path or no name, and for a cert or a key without the other.
    """

    ca: files.FilePath | None = None
    cert: files.FilePath | None = None
    key: files.FilePath | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        for name in ("ca", "cert", "key"):
            value = getattr(self, name)
            if value is not None:  # absolute, since it is read again later
                object.__setattr__(self, name, files.absolute(f"TLS {name}", value))
        if (self.cert is None) != (self.key is None):
            given, missing = ("key", "cert") if self.cert is None else ("cert", "key")
            raise ValueError(f"TLS {given} is given without TLS {missing}: they belong together")
        if self.server_name is None:
            return
        if not isinstance(self.server_name, str):
            raise TypeError(f"TLS server_name must be a str, not {type(self.server_name).__name__}")
        if not SERVER_NAME.fullmatch(self.server_name):
            raise ValueError(f"TLS server_name must be a host name or an IP address, not {self.server_name[:100]!r}")
