"""How a server is reached: its addresses, by TLS or in plain text, and by which token it knows who calls."""

import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from .addresses import is_here, shown, targets
from .tls import TLS
from .tokens import Token, TokenFile, checked

__all__ = ["Access", "access"]

ADDRESS: Final = "127.0.0.1:7171"
OF_TLS: Final = {
    "ca": "COMITY_TLS_CA",
    "cert": "COMITY_TLS_CLIENT_CERT",
    "key": "COMITY_TLS_CLIENT_KEY",
    "server_name": "COMITY_TLS_SERVER_NAME",
}
YES: Final = frozenset({"1", "true", "yes", "on"})
NO: Final = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Access:
    """Can be pickled, for another process, if a token that is a function can be. Its repr does not show the token."""

    address: str
    tls: TLS | None = None
    token: Token | None = field(default=None, repr=False)

    @property
    def is_authenticated(self) -> bool:
        """Whether the server is told who calls."""
        return self.token is not None or (self.tls is not None and self.tls.cert is not None)


def access(
    address: str | None = None,
    tls: bool | TLS | None = None,
    token: Token | None = None,
    variables: Mapping[str, str] = os.environ,
) -> Access:
    """What the arguments of `comity.connect` mean, and where they say nothing, the variables.

    Raises TypeError and ValueError for what is none of these; ValueError for a file that holds no token, and for a
    token that would go to another machine in plain text without `tls=False` having been said.
    """
    address = address or variables.get("COMITY_ADDRESS") or ADDRESS
    reached = targets(address)
    if tls is None:
        tls = _wanted(variables)
    if tls is True:
        tls = _tls(variables)
    if tls not in (None, False) and not isinstance(tls, TLS):
        raise TypeError(f"tls must be True, False or a comity.TLS, not {type(tls).__name__}")
    token = _token(token, variables)
    if token is not None and tls is None:
        for target in reached:
            if not is_here(target):
                raise ValueError(
                    f"a token is not sent in plain text to another machine ({shown(target)}): connect by TLS, or say "
                    "tls=False (COMITY_TLS=0, --no-tls) where nobody else is on the network between"
                )
    return Access(address, tls or None, token)


def _tls(variables: Mapping[str, str]) -> TLS:
    """With the files that the variables name."""
    return TLS(**{name: variables[variable] for name, variable in OF_TLS.items() if variables.get(variable)})


def _wanted(variables: Mapping[str, str]) -> bool | None:
    """What the variables say: whether to connect by TLS; None: nothing. What names a file of it says so, too."""
    said = variables.get("COMITY_TLS", "").lower()
    if said in YES or said in NO:
        return said in YES
    if said:
        raise ValueError(f"COMITY_TLS is 1 or 0, not {said[:100]!r}")
    return True if any(variables.get(variable) for variable in OF_TLS.values()) else None


def _token(token: Token | None, variables: Mapping[str, str]) -> Token | None:
    if token is None:
        if variables.get("COMITY_TOKEN"):
            return checked(variables["COMITY_TOKEN"], "COMITY_TOKEN")
        return TokenFile(variables["COMITY_TOKEN_FILE"]) if variables.get("COMITY_TOKEN_FILE") else None
    if isinstance(token, str):
        return checked(token)
    if not callable(token):
        raise TypeError(f"token must be a str or a function that returns one, not {type(token).__name__}")
    if inspect.iscoroutinefunction(token):
        raise TypeError("token must be a function that returns a str: an async one cannot be waited for")
    return token
