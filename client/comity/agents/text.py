"""Text of whatever was raised, so that it can be stored: an exception may have none, or one that no UTF-8 holds."""

import traceback

__all__ = ["described", "storable", "text_of"]

DESCRIBED_LENGTH = 500


def storable(text: str) -> str:
    """The text, with a ? for each half of a surrogate pair, as file names have them that are no UTF-8."""
    return text.encode(errors="replace").decode()


def text_of(error: BaseException) -> str:
    """What the exception says of itself."""
    try:
        return storable(str(error))
    except Exception as broken:  # noqa: BLE001 - it is the program's own __str__
        return f"(its text failed with {type(broken).__name__})"


def described(error: BaseException) -> str:
    """An exception in one line, or a few."""
    try:
        text = "".join(traceback.format_exception_only(error))
    except Exception:  # noqa: BLE001 - as above: not all that an exception may have broken is caught there
        text = f"{type(error).__name__}: {text_of(error)}"
    return storable(text).strip()[:DESCRIBED_LENGTH]
