"""Why a server cannot be reached, from what gRPC says: a line that names attempts, address families and C calls."""

from typing import Final, NamedTuple

__all__ = ["TLS_FAILED", "UNREACHABLE", "Reason", "explained", "hung_up"]

UNREACHABLE: Final = "UNREACHABLE"
TLS_FAILED: Final = "TLS_FAILED"  # soon, the same will be so

OF_CONNECTING = ("failed to connect to ", "errors resolving ", "dns resolution failed ")
OF_SILENCE = ("timed out", "timeout", "endpoint closing")
OF_OTHERS = ("failed parsing http/2", "missing selected alpn")
OF_TLS = {
    "certificate has expired": "its certificate has expired",
    "certificate is not yet valid": "its certificate is not valid yet",
    "hostname verification check failed": "its certificate is for another name",
    "is not in peer certificate": "its certificate is for another name",  # as older releases of gRPC have it
    "certificate_verify_failed": (
        "its certificate is signed by none of the authorities that are trusted here (COMITY_TLS_CA)"
    ),
    "wrong_version_number": "it does not speak TLS: connect in plain text (COMITY_TLS=0), or to the port that does",
    "certificate_required": "it asks for a client certificate (COMITY_TLS_CLIENT_CERT, COMITY_TLS_CLIENT_KEY)",
    "alert_unknown_ca": "it does not trust the client certificate",
    "alert_bad_certificate": "it does not accept the client certificate",
    "alert_certificate_expired": "it says that the client certificate has expired",
    "alert_certificate_unknown": "it does not accept the client certificate",
}
HUNG_UP = "it closed the connection at once, as one does that expects TLS, or another client certificate"
OF_CLOSING = ("socket closed", "connection reset", "broken pipe", "handshake shutdown")


class Reason(NamedTuple):
    """Why a server cannot be reached: for programs, and for people."""

    reason: str
    message: str


def explained(message: str, address: str) -> Reason | None:
    """The same for people: `cannot reach 127.0.0.1:7171: connection refused`. None: it is about something else."""
    text = message.lower()
    if not text.startswith(OF_CONNECTING):
        return None
    for words, why in OF_TLS.items():
        if words in text:
            return Reason(TLS_FAILED, f"cannot reach {address}: {why}")
    if "ssl_error_ssl" in text:
        said = text.rpartition("ssl routines:")[2].removesuffix(": ok").removeprefix("openssl_internal:")
        return Reason(TLS_FAILED, f"cannot reach {address}: no connection by TLS could be made: {said}")
    if any(word in text for word in OF_SILENCE):
        return Reason(UNREACHABLE, f"cannot reach {address}: it does not answer")
    if any(word in text for word in OF_OTHERS):
        return Reason(UNREACHABLE, f"cannot reach {address}: it speaks no HTTP/2, as the port of something else may")
    why = text.rpartition(": ")[2].strip(" ]")
    # A server that wants TLS, or a certificate, closes without a word what comes without. So does one that just ends.
    if any(word in text for word in OF_CLOSING):
        why = HUNG_UP
    return Reason(UNREACHABLE, f"cannot reach {address}: {why}")


def hung_up(message: str) -> bool:
    """Whether this is said of a server that closes connections as soon as they are made."""
    return message.endswith(HUNG_UP)
