"""Figures within a text for people."""


def counted(count: int, what: str) -> str:
    """`1 key`, `2 keys`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def plain(text: str) -> str:
    """The text on one line, with nothing in it that a terminal would obey: what clients write may be anything."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape", "surrogatepass").decode() for each in text
    )


def figure(value: float, digits: int = 6) -> str:
    """A number of so many digits, and a large one of all it has, without an exponent: `0.25`, `2000`, `5000000`."""
    return f"{value:.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"
