"""JWTs against a JWKS file: whose they are, and in which ways they are none."""

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comity_server.access import files, jwts
from comity_server.access.caller import Identity
from comity_server.access.files import FileError
from comity_server.access.jwts import Jwts, parse
from comity_server.errors import Unauthenticated

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
KEYS: dict[str, Any] = {"RS256": RSA, "ES256": EC, "EdDSA": ED}


def jwk(algorithm: str, key: Any, **more: Any) -> dict[str, Any]:
    """The public key, as a JWK with the algorithm's name as its kid."""
    made = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    return {**made, "kid": algorithm, **more}


SET = {"keys": [jwk(algorithm, key) for algorithm, key in KEYS.items()]}


def claims(**changes: Any) -> dict[str, Any]:
    """Those of a good token; what is changed to None it has not."""
    now = int(time.time())
    made = {"sub": "planner", "exp": now + 3600, "nbf": now - 10, "iss": "https://issuer", "aud": "comity"}
    return {name: value for name, value in (made | changes).items() if value is not None}


def sign(said: dict[str, Any], algorithm: str = "ES256", **headers: Any) -> str:
    return jwt.encode(said, KEYS[algorithm], algorithm, headers={"kid": algorithm, **headers})


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def compact(header: Any, said: Any, signature: bytes = b"") -> str:
    parts = (json.dumps(header).encode(), json.dumps(said).encode(), signature)
    return ".".join(base64url(part) for part in parts)


def with_hmac(secret: bytes) -> str:
    """As a verifier takes it that lets the token choose, and uses the public key as the secret."""
    signed = compact({"alg": "HS256", "kid": "RS256"}, claims()).removesuffix(".")
    return f"{signed}.{base64url(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def write(file: Path, keys: list[dict[str, Any]]) -> None:
    file.write_text(json.dumps({"keys": keys}))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "jwks.json"
    write(file, SET["keys"])
    return file


@pytest.fixture
def verifier(file: Path) -> Jwts:
    return Jwts(file, "https://issuer", "comity")


def whose(verifier: Jwts, token: str) -> str:
    return verifier.identify(token, time.time()).principal


def problem(verifier: Jwts, token: str) -> tuple[str, str]:
    with pytest.raises(Unauthenticated) as caught:
        verifier.identify(token, time.time())
    assert len(token) < 30 or token not in caught.value.message
    return caught.value.metadata["problem"], caught.value.message


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_token_is_of_its_subject(verifier: Jwts, algorithm: str) -> None:
    said = claims()
    identity = verifier.identify(sign(said, algorithm), time.time())
    assert identity == ("planner", said["exp"] + jwts.LEEWAY_SECONDS)


def test_another_claim_may_name_the_principal(file: Path) -> None:
    assert whose(Jwts(file, claim="email"), sign(claims(email="a@example", sub=None))) == "a@example"


def test_issuer_and_audience_are_asked_for_where_they_are_set(file: Path) -> None:
    any_of_them = Jwts(file)
    assert whose(any_of_them, sign(claims(iss=None, aud=None))) == "planner"
    assert whose(any_of_them, sign(claims(aud=["others"]))) == "planner"
    assert whose(Jwts(file, audience="comity"), sign(claims(aud=["others", "comity"]))) == "planner"


def test_clocks_may_differ_a_little(verifier: Jwts) -> None:
    now = int(time.time())
    assert whose(verifier, sign(claims(exp=now - 20, nbf=now + 20))) == "planner"


@pytest.mark.parametrize(
    ("changes", "wrong", "says"),
    [
        ({"exp": 1}, "expired", "has expired"),
        ({"exp": None}, "malformed", "no exp"),
        ({"exp": "soon"}, "malformed", "no valid JWT"),
        ({"exp": float("nan")}, "malformed", "no valid JWT"),
        ({"exp": float("inf")}, "malformed", "no valid JWT"),
        ({"exp": []}, "malformed", "no valid JWT"),
        ({"nbf": 1 << 40}, "unknown", "not valid yet"),
        ({"iss": None}, "malformed", "no iss"),
        ({"iss": "https://other"}, "unknown", "another issuer"),
        ({"aud": None}, "malformed", "no aud"),
        ({"aud": "others"}, "unknown", "another audience"),
        ({"aud": ["others"]}, "unknown", "another audience"),
        ({"sub": None}, "malformed", "no sub"),
        ({"sub": ""}, "malformed", "sub is empty"),
        ({"sub": "anonymous"}, "malformed", "sub may not be"),
        ({"sub": "a\u202eb"}, "malformed", "cannot be printed"),
        ({"sub": "x" * 129}, "malformed", "longer than 128 bytes"),
    ],
)
def test_what_claims_have_to_say(verifier: Jwts, changes: dict[str, Any], wrong: str, says: str) -> None:
    found, message = problem(verifier, sign(claims(**changes)))
    assert found == wrong
    assert says in message


def test_a_claim_that_is_no_text_names_nobody(file: Path) -> None:
    found = problem(Jwts(file, claim="number"), sign(claims(number=7)))
    assert found == ("malformed", "the token's number is no text")


def tampered() -> str:
    header, _, signature = sign(claims()).split(".")
    return ".".join((header, base64url(json.dumps(claims(sub="other")).encode()), signature))


PUBLIC = RSA.public_key()
NONE = {"alg": "none", "kid": "RS256"}


FORGED = [
    compact(NONE, claims()),
    compact({**NONE, "alg": "NONE"}, claims()),
    compact({**NONE, "alg": "None"}, claims(), b"x"),
    compact({**NONE, "alg": ""}, claims()),
    compact({"kid": "RS256"}, claims()),
    compact({**NONE, "alg": ["RS256"]}, claims()),
    compact({**NONE, "alg": None}, claims()),
    with_hmac(PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)),
    with_hmac(PUBLIC.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)),
    with_hmac(json.dumps(SET["keys"][0]).encode()),
    with_hmac(b""),
    jwt.encode(claims(), RSA, "RS512", headers={"kid": "RS256"}),
    jwt.encode(claims(), RSA, "PS256", headers={"kid": "RS256"}),
    jwt.encode(claims(), RSA, "RS256", headers={"kid": "ES256"}),
    jwt.encode(claims(), ec.generate_private_key(ec.SECP256R1()), "ES256", headers={"kid": "ES256"}),
    jwt.encode(claims(), EC, "ES256"),  # which of the keys?
    sign(claims(), kid="none"),
    sign(claims(), kid=""),
    sign(claims(), crit=["x"], x=1),
    compact({"alg": "ES256", "kid": 7}, claims(), b"x"),
    compact({"alg": "ES256", "kid": []}, claims(), b"x"),
    # A key that the token brings itself is not looked at.
    jwt.encode(claims(), RSA, "RS256", headers={"kid": "x", "jwk": jwk("RS256", RSA), "jku": "https://x"}),
    tampered(),
    sign(claims())[:-4],
    "..",
    "a.b.c",
    "e30.e30.",
    base64url(b"[" * 5000) + ".e30.e30",
    compact([], claims(), b"x"),
    compact({"alg": "ES256", "kid": "ES256", "b64": False, "crit": ["b64"]}, claims(), b"x"),
]


@pytest.mark.parametrize("token", FORGED, ids=map(str, range(len(FORGED))))
def test_what_is_not_signed_by_a_key_is_nobodys(verifier: Jwts, token: str) -> None:
    assert problem(verifier, token)[0] in ("unknown", "malformed")


@given(st.text("abcdefABCDEF0123456789-_.=~+/", min_size=1, max_size=400))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_token_is_it_is_somebodys_or_nobodys(verifier: Jwts, token: str) -> None:
    problem(verifier, token)


def test_a_set_of_one_key_needs_no_kid(tmp_path: Path) -> None:
    only = jwk("ES256", EC)
    del only["kid"]
    write(tmp_path / "one", [only])
    verifier = Jwts(tmp_path / "one")
    assert whose(verifier, jwt.encode(claims(), EC, "ES256")) == "planner"
    assert problem(verifier, sign(claims()))[0] == "unknown"


def test_a_verified_token_is_remembered_until_it_expires(verifier: Jwts, monkeypatch: pytest.MonkeyPatch) -> None:
    said = claims()
    token = sign(said)
    identity = verifier.identify(token, time.time())
    checks: list[str] = []
    verify = verifier._verify

    def counted(token: str) -> Identity:
        checks.append(token)
        return verify(token)

    monkeypatch.setattr(verifier, "_verify", counted)
    assert verifier.identify(token, time.time()) is identity
    assert not checks
    assert verifier.identify(token, said["exp"] + 31) == identity  # by its clock it is not over
    assert checks == [token]


def test_what_is_remembered_has_a_bound(verifier: Jwts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwts, "REMEMBERED", 3)
    for number in range(10):
        whose(verifier, sign(claims(sub=f"p{number}")))
    assert len(verifier._remembered) == 3


async def test_a_new_file_makes_forget_what_was_verified(
    verifier: Jwts, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "SETTLE_SECONDS", 0.0)
    token = sign(claims())
    assert whose(verifier, token) == "planner"
    write(file, SET["keys"][:1])
    await verifier.keys.look()
    assert await verifier.keys.look()
    assert problem(verifier, token) == ("unknown", "the token is signed by no key that the server knows")
    assert whose(verifier, sign(claims(), "RS256")) == "planner"


def small() -> dict[str, Any]:
    return jwk("RS256", rsa.generate_private_key(public_exponent=65537, key_size=1024))


def private() -> dict[str, Any]:
    return {**jwt.get_algorithm_by_name("ES256").to_jwk(EC, as_dict=True), "kid": "x"}  # type: ignore[call-overload, unused-ignore]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is not JSON"),
        ("[" * 10_000, "is not JSON"),
        ("[]", "is not a JWK set"),
        ('{"keys": {}}', "is not a JWK set"),
        ('{"keys": []}', "has no public key for RS256, ES256, EdDSA"),
        ({"keys": ["x"]}, "keys[0]: is not an object"),
        ({"keys": [{"kty": "oct", "k": "AAAA", "kid": "x"}]}, "has no public key for"),
        ({"keys": [jwk("ES256", EC, use="enc")]}, "has no public key for"),
        ({"keys": [private()]}, "keys[0]: is a private key"),
        ({"keys": [small()]}, "keys[0]: has fewer than 2048 bits"),
        ({"keys": [jwk("ES256", EC, kid=7)]}, "keys[0]: has a kid that is no text"),
        ({"keys": [jwk("ES256", EC), jwk("ES256", EC)]}, "keys[1]: has the kid of a key before it"),
        ({"keys": [jwk("RS256", RSA, alg="ES256")]}, "keys[0]: is no key for ES256"),
        ({"keys": [jwk("ES256", EC, x="AAAA", alg="ES256")]}, "keys[0]: is no key for ES256"),
        ({"keys": [{}] * 1001}, "has more than 1000 keys"),
    ],
)
def test_what_a_file_has_to_be(content: Any, says: str) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    with pytest.raises(FileError) as caught:
        parse([text.encode()], Path("jwks.json"))
    assert str(caught.value).startswith("jwks.json: ")
    assert says in str(caught.value)


def test_keys_of_no_use_are_passed_over() -> None:
    others = [{"kty": "oct", "k": "AAAA"}, {"kty": "new"}, jwk("RS256", RSA, alg="RS512"), {}]
    assert list(parse([json.dumps({"keys": [*others, *SET["keys"]]}).encode()], Path("x"))) == list(KEYS)
