"""Tokens for tests: a token file, and JWTs with the JWKS file of the key that signs them."""

import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from comity_server.access.tokens import line_of

KEY = ec.generate_private_key(ec.SECP256R1())


def write_tokens(file: Path, **tokens: str) -> None:
    """Have a file hold tokens, by name of principal."""
    file.write_text("".join(line_of(principal, token) + "\n" for principal, token in tokens.items()))


def write_jwks(file: Path, kid: str = "key") -> None:
    made: Any = jwt.get_algorithm_by_name("ES256")
    file.write_text(json.dumps({"keys": [{**made.to_jwk(KEY.public_key(), as_dict=True), "kid": kid}]}))


def signed(principal: str, seconds: float = 3600) -> str:
    """A JWT that expires in so many seconds."""
    return jwt.encode({"sub": principal, "exp": time.time() + seconds}, KEY, "ES256", headers={"kid": "key"})


def bearing(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata that shows a token."""
    return (("authorization", f"Bearer {token}"),)
