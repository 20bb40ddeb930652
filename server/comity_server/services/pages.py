"""Page tokens: where the next page begins, sealed for the request that the page before answered."""

import base64
import hashlib
import json
from typing import Any, Final

from google.protobuf.message import Message

from comity_server.errors import EpochChanged, InvalidRequest, Violation
from comity_server.model import Position

_SEAL_BYTES: Final = 8
_LARGEST: Final = 2**63 - 1

Place = list[Any]


def seal(request: Any, place: Place) -> str:
    """Make the token of a place in what a request asks for. The place is a list of numbers and texts."""
    data = json.dumps(place, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_digest(request, data) + data).decode().rstrip("=")


def unseal(request: Any, *types: type) -> Place | None:
    """Read the place back from a request's page_token: a list of these types, or None if the token is empty.

    Raises InvalidRequest if the token is not one that `seal` made for the same request.
    """
    token: str = request.page_token
    if not token:
        return None
    try:
        sealed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        seal, data = sealed[:_SEAL_BYTES], sealed[_SEAL_BYTES:]
        if seal != _digest(request, data):
            raise ValueError("another request's")
        place = json.loads(data)
        if not isinstance(place, list) or [type(part) for part in place] != list(types):
            raise ValueError("not a place")
        if not all(0 <= part <= _LARGEST for part in place if isinstance(part, int)):
            raise ValueError("out of range")
    except (ValueError, RecursionError):
        raise InvalidRequest(Violation("page_token", "is not a token that this request was answered with")) from None
    return place


def check_epoch(epoch: str, position: Position) -> None:
    """Raises EpochChanged if a place is of another history than the one that there is."""
    if epoch != position.epoch:
        raise EpochChanged(position.epoch, position.floor, position.revision)


def _digest(request: Message, data: bytes) -> bytes:
    """Tells one request from another by all of it but its token. Against mistakes; it keeps no secret."""
    asked = type(request)()
    asked.CopyFrom(request)
    asked.ClearField("page_token")
    text = asked.SerializeToString(deterministic=True)
    return hashlib.blake2b(data + text, digest_size=_SEAL_BYTES, person=b"comity page").digest()
