"""Principals for tests: each has a token, which the token file of a server knows."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.wire.calls import Metadata

Rule = Mapping[str, Any]


def token_of(principal: str) -> str:
    """A token, which is as good as another where all run on one machine."""
    return f"cmt_{principal}-0123456789abcdef0123456789abcdef"


def shown(principal: str) -> Metadata:
    """What a principal's calls show; nothing for nobody in particular."""
    return (("authorization", f"Bearer {token_of(principal)}"),) if principal else ()


def write_tokens(file: Path, principals: Iterable[str]) -> Path:
    """Make a token file of principals."""
    lines = (f"{each} {hashlib.sha256(token_of(each).encode()).hexdigest()}\n" for each in principals if each)
    return replaced(file, "".join(lines))


def write_policy(file: Path, rules: Iterable[Rule]) -> Path:
    """Make a policy file of rules."""
    return replaced(file, "".join("[[rules]]\n" + "".join(map(_line, rule.items())) for rule in rules))


def replaced(file: Path, text: str) -> Path:
    """Replace a file's content at once."""
    written = file.with_name(file.name + ".new")
    written.write_text(text)
    written.replace(file)
    return file


def _line(field: tuple[str, list[str]]) -> str:
    name, texts = field
    return f"{name} = {json.dumps(texts)}\n"
