"""Why a server cannot be reached, from what gRPC says: a line that names attempts, address families and C calls."""

__all__ = ["explained"]

OF_CONNECTING = ("failed to connect to ", "errors resolving ", "dns resolution failed ")
OF_SILENCE = ("timed out", "timeout")


def explained(message: str, address: str) -> str | None:
    """The same for people: `cannot reach 127.0.0.1:7171: connection refused`. None: it is about something else."""
    text = message.lower()
    if not text.startswith(OF_CONNECTING):
        return None
    silent = any(word in text for word in OF_SILENCE)
    return f"cannot reach {address}: {'it does not answer' if silent else text.rpartition(': ')[2].strip(' ]')}"
