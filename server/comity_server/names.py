"""What namespaces and principals may be called."""

import re
from typing import Final

NAMESPACE: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
NAMESPACE_LENGTH: Final = 63  # no namespace has a longer name
PRINCIPAL_BYTES: Final = 128
ANONYMOUS: Final = "anonymous"  # how a policy names those who are nobody; so nobody may be called that, or below it


def name_of(principal: str) -> str:
    """What a principal is called; empty: nobody in particular."""
    return principal or ANONYMOUS


def owns(principal: str, author: str) -> bool:
    """Whether what an author wrote is a principal's: the author is the principal, or `principal/…`."""
    below = f"{name_of(principal)}/"
    return author in (principal, name_of(principal)) or (author.startswith(below) and author != below)


def wrong_with(principal: str) -> str | None:
    """What is wrong with a name for a principal, if anything: it is 1-128 bytes of printable text, without spaces at
    its ends, and neither `anonymous` nor `anonymous/…`."""
    if not principal:
        return "is empty"
    if not principal.isprintable():  # which surrogates are not either
        return "has characters that cannot be printed"
    if len(principal.encode()) > PRINCIPAL_BYTES:
        return f"is longer than {PRINCIPAL_BYTES} bytes"
    if principal != principal.strip():
        return "begins or ends with a space"
    if principal == ANONYMOUS:
        return f"may not be {ANONYMOUS!r}, which stands for nobody"
    if principal.startswith(f"{ANONYMOUS}/"):
        return f"may not begin with '{ANONYMOUS}/', which are authors of those who are nobody"
    return None
