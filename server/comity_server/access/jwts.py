"""JSON Web Tokens (RFC 7519), held against the public keys of a JWKS file (RFC 7517). PyJWT verifies them.

The file is not fetched: whatever brings it, as a sidecar or a mounted secret, may replace it at any time.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from comity_server.access.caller import Identity
from comity_server.access.files import Contents, FileError, Watched
from comity_server.errors import Unauthenticated
from comity_server.names import wrong_with

# With these a token is made by a private key that the server does not have. `none`, and the HMACs, for which the public
# key would do as the secret, are not among them.
ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")
RSA_BITS: Final = 2048  # at least
LEEWAY_SECONDS: Final = 30
MOST_KEYS: Final = 1_000
REMEMBERED: Final = 10_000  # verified tokens

Keys = Mapping[str | None, jwt.PyJWK]  # by `kid`


class Jwts:
    """Tells who a JWT is of.

    Args:
        path: the JWKS file.
        issuer: what `iss` has to be, if anything.
        audience: what `aud` has to hold, if anything.
        claim: which names the principal.

    Raises FileError.
    """

    def __init__(self, path: Path, issuer: str | None = None, audience: str | None = None, claim: str = "sub") -> None:
        self.keys: Watched[Keys] = Watched("jwks", [path], lambda contents: parse(contents, path))
        self.keys.on_change(self._forget)
        self._issuer = issuer
        self._audience = audience
        self._claim = claim
        self._required = ["exp", claim, *(["iss"] if issuer else []), *(["aud"] if audience else [])]
        self._remembered: OrderedDict[bytes, Identity] = OrderedDict()  # by the token's digest

    def identify(self, token: str, now: float, guess: Callable[[], None] = lambda: None) -> Identity:
        """Whose a token is at a time. `guess` is called before one is verified. Raises Unauthenticated."""
        digest = hashlib.sha256(token.encode()).digest()
        identity = self._remembered.get(digest)
        if identity is None or identity.expires is None or identity.expires <= now:
            guess()
            identity = self._verify(token)
            self._remembered[digest] = identity
            if len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
        else:
            self._remembered.move_to_end(digest)
        return identity

    def _forget(self, _: Keys) -> None:
        self._remembered.clear()

    def _verify(self, token: str) -> Identity:
        try:
            claims = self._claims(token)
            expires = float(claims["exp"]) + LEEWAY_SECONDS
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("expired", "the token has expired") from None
        except jwt.ImmatureSignatureError:
            raise Unauthenticated("unknown", "the token is not valid yet") from None
        except jwt.InvalidIssuerError:
            raise Unauthenticated("unknown", "the token is of another issuer") from None
        except jwt.InvalidAudienceError:
            raise Unauthenticated("unknown", "the token is for another audience") from None
        except jwt.MissingRequiredClaimError as error:
            raise Unauthenticated("malformed", f"the token has no {error.claim}") from None
        except jwt.InvalidAlgorithmError:
            raise Unauthenticated(
                "unknown", f"the token is not signed as its key signs, of {', '.join(ALGORITHMS)}"
            ) from None
        except jwt.InvalidSignatureError:
            raise Unauthenticated("unknown", "the token's signature is not that of its key") from None
        except jwt.PyJWTError:
            raise Unauthenticated("malformed", "the token is no valid JWT") from None
        except (ValueError, TypeError, OverflowError, RecursionError):  # of what stands in it
            raise Unauthenticated("malformed", "the token is no valid JWT") from None
        principal = claims[self._claim]
        if not isinstance(principal, str):
            raise Unauthenticated("malformed", f"the token's {self._claim} is no text")
        if (wrong := wrong_with(principal)) is not None:
            raise Unauthenticated("malformed", f"the token's {self._claim} {wrong}")
        return Identity(principal, expires)

    def _claims(self, token: str) -> dict[str, Any]:
        header = jwt.get_unverified_header(token)
        if (
            "crit" in header
        ):  # it names what a verifier must know or refuse, and nothing is known; PyJWT 2.10 lets it by
            raise jwt.InvalidTokenError
        keys = self.keys.value
        kid = header.get("kid")
        if kid is None and len(keys) == 1:
            (key,) = keys.values()
        elif kid is None:
            raise Unauthenticated("unknown", "the token does not say by which key it is signed: it has no kid")
        elif kid not in keys:
            raise Unauthenticated("unknown", "the token is signed by no key that the server knows")
        else:
            key = keys[kid]
        return jwt.decode(
            token,
            key.key,
            algorithms=[key.algorithm_name],
            issuer=self._issuer,
            audience=self._audience,
            leeway=LEEWAY_SECONDS,
            options={"require": self._required, "verify_aud": self._audience is not None},
        )


def parse(contents: Contents, path: Path) -> Keys:
    """The keys of a file that tokens may be signed by. Others in it are passed over. Raises FileError."""
    try:
        document = json.loads(contents[0])
    except (ValueError, RecursionError):
        raise FileError(f"{path}: is not JSON") from None
    said = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(said, list):
        raise FileError(f"{path}: is not a JWK set, which has a list of `keys`")
    if len(said) > MOST_KEYS:
        raise FileError(f"{path}: has more than {MOST_KEYS} keys")
    keys: dict[str | None, jwt.PyJWK] = {}
    for number, item in enumerate(said):
        try:
            key = _key(item)
            if key is None:
                continue
            if key.key_id in keys:
                raise ValueError(
                    "has the kid of a key before it" if key.key_id is not None else "needs a kid, as others"
                )
        except ValueError as error:
            raise FileError(f"{path}: keys[{number}]: {error}") from None
        keys[key.key_id] = key
    if not keys:
        raise FileError(f"{path}: has no public key for {', '.join(ALGORITHMS)}")
    return keys


def _key(item: object) -> jwt.PyJWK | None:
    """A key of a JWK set, unless it is of no use here. Raises ValueError."""
    if not isinstance(item, dict):
        raise ValueError("is not an object")  # noqa: TRY004 - it is the file that is wrong
    if item.get("kty") not in ("RSA", "EC", "OKP") or item.get("use", "sig") != "sig":
        return None
    if "d" in item:
        raise ValueError("is a private key, which a server that verifies tokens must not have")
    kid = item.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise ValueError("has a kid that is no text")
    try:
        key = jwt.PyJWK(item)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        if item.get("alg") in ALGORITHMS:
            raise ValueError(f"is no key for {item['alg']}") from None
        return None
    if key.algorithm_name not in ALGORITHMS:
        return None
    match key.algorithm_name, key.key:
        case "RS256", RSAPublicKey() as public:
            if public.key_size < RSA_BITS:
                raise ValueError(f"has fewer than {RSA_BITS} bits")
        case "ES256", EllipticCurvePublicKey() as public if public.curve.name == "secp256r1":
            pass
        case "EdDSA", Ed25519PublicKey():
            pass
        case _:
            raise ValueError(f"is no key for {key.algorithm_name}")
    return key
