"""How something grows with time, over several lives of what it is of."""

from collections import defaultdict
from dataclasses import dataclass, field


@dataclass
class _Sums:
    began: float
    count: int = 0
    times: float = 0.0
    values: float = 0.0
    squares: float = 0.0  # of the times
    products: float = 0.0


@dataclass
class Slope:
    """The slope of the lines that fit best: one for each life, all as steep. It keeps sums, not what was added.

    Args:
        warm: seconds of each life that do not count.
    """

    warm: float
    _lives: defaultdict[str, list[_Sums]] = field(default_factory=lambda: defaultdict(list))

    def add(self, life: str, time: float, value: float) -> None:
        """What it was at a time, in seconds."""
        sums = self._lives[life]
        if not sums:
            sums.append(_Sums(time))
        (one,) = sums
        at = time - one.began - self.warm
        if at >= 0:
            one.count += 1
            one.times += at
            one.values += value
            one.squares += at * at
            one.products += at * value

    @property
    def per_hour(self) -> float:
        """How much it grows in an hour; 0 where there is nothing to tell it by."""
        lives = [one for (one,) in self._lives.values() if one.count > 1]
        spread = sum(one.squares - one.times * one.times / one.count for one in lives)
        together = sum(one.products - one.times * one.values / one.count for one in lives)
        return 3600 * together / spread if spread else 0.0
