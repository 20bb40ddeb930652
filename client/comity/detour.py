"""For how long there are to be no streams."""

from typing import Final

__all__ = ["Detour"]

ASIDE_SECONDS: Final = (0.5, 60.0)  # for how long calls go by themselves: at first, and at the most


class Detour:
    """For how long there are to be no streams. It doubles with each one that fails before it has answered anything."""

    def __init__(self) -> None:
        self._until = 0.0
        self._seconds = ASIDE_SECONDS[0]

    def begin(self, now: float) -> None:
        self._until = now + self._seconds
        self._seconds = min(self._seconds * 2, ASIDE_SECONDS[1])

    def pause(self, now: float, seconds: float) -> None:
        """Begin one for another reason than that a stream has failed."""
        self._until = now + seconds

    def reset(self) -> None:
        """The next one is a first one."""
        self._seconds = ASIDE_SECONDS[0]

    def lasts(self, now: float) -> bool:
        return now < self._until
