"""What can be set. Everything is said once, in `Settings`: the flags, the variables, the keys of the file and the help
come from it."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from comity_server.limits import MOST, UNBOUNDED, Limits, Retention
from comity_server.stores.url import default_url

PREFIX = "COMITY_"
LIMIT = "limit_"
RETENTION = "retention_"

ADDRESS = re.compile(r"(?:\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[^\[\]:/\s]+):(\d{1,5})")

_limits = Limits()
_retention = Retention()


class SettingsError(ValueError):
    """A setting is wrong. The message is one line that names the setting and where it came from."""


class Settings(BaseSettings):
    """The settings of `comity serve`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, env_ignore_empty=True)

    listen: Annotated[list[str], NoDecode] = Field(
        ["127.0.0.1:7171"],
        min_length=1,
        description="Where to listen: HOST:PORT, IPv6 as [ADDRESS]:PORT, port 0 for a free one. May be repeated.",
    )
    store: str = Field(
        default_factory=default_url,
        min_length=1,
        description="Where the state is kept: sqlite:PATH in a file, memory: nowhere beyond the process, "
        "redis://HOST in a Redis that servers may share, also as redis+sentinel:// and redis+cluster://.",
    )
    require_durable: bool = Field(
        False, description="Refuse to start on a store that may lose what it has acknowledged."
    )
    redis_wait_replicas: int = Field(
        0, ge=0, le=100, description="How many replicas of Redis must have a write before it is acknowledged."
    )
    workers: int = Field(
        1, ge=1, le=256, description="Processes that serve on the same addresses. More than 1 need a Redis to share."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="What is worth a log line.")
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="How log lines look. auto: for people on a terminal, JSON elsewhere."
    )
    log_calls: Literal["none", "failed", "all"] = Field(
        "none",
        description="Which calls have a log line when they end; failed: not those that their client cancelled. With "
        "both, operations of pipelines that are answered with errors have lines, too.",
    )
    metrics_listen: str = Field(
        "", description="Where Prometheus reads metrics, in plain text: HOST:PORT; empty: nowhere."
    )
    metrics_namespaces: bool | None = Field(
        None,
        description="Whether metrics have namespaces by name, or all of them together. Unless said, only where "
        "metrics_listen is on loopback, or empty.",
    )
    otlp_endpoint: str = Field(
        "",
        description="Where to send metrics and traces by OTLP over gRPC: http://HOST:PORT or https://HOST:PORT; empty: "
        "nowhere, unless variables of OpenTelemetry say so.",
    )
    drain_timeout: float = Field(
        30.0, ge=0, le=3600, description="How long a stop waits for requests in flight, in seconds."
    )
    drain_delay: float = Field(
        0.0,
        ge=0,
        le=3600,
        description="How long a stop goes on to serve before it drains, in seconds, while health says NOT_SERVING.",
    )
    health_listen: Annotated[list[str], NoDecode] = Field(
        [],
        description="Where to tell health alone, in plain text, for Kubernetes: HOST:PORT. May be repeated.",
    )
    progress_interval: float = Field(
        10.0,
        ge=0.1,
        le=3600,
        description="How often a quiet watch stream says its revision, in seconds; or up to a tenth sooner.",
    )
    compaction_interval: float = Field(
        10.0, ge=0.1, le=86400, description="How often the retention is applied, in seconds."
    )
    max_pending: int = Field(
        10_000, ge=1, le=10_000_000, description="Writes that may wait to be committed before others are refused."
    )
    max_connection_calls: int = Field(
        1_000, ge=1, le=1_000_000, description="Calls that one connection may have open at a time; others wait."
    )
    max_connection_bytes: int = Field(
        64 * 1024 * 1024,
        ge=1,
        description="Bytes of requests and answers that the calls of one connection may have in memory; others wait.",
    )
    max_bytes: int = Field(
        2 * 1024 * 1024 * 1024,
        ge=1,
        description="The same of all connections. Beyond it each principal, or address, has one call at a time, "
        "and others are refused.",
    )
    max_calls: int = Field(
        50_000, ge=0, le=10_000_000, description="Calls that may be open at a time; others are refused. 0: no bound."
    )
    max_principal_calls: int = Field(
        10_000,
        ge=0,
        le=10_000_000,
        description="Those of one principal, or of one address where nobody is known, but for streams. 0: no bound.",
    )
    max_principal_streams: int = Field(
        20_000,
        ge=0,
        le=10_000_000,
        description="Watches, pipelines and streams of renewals that one principal, or address, may have open. "
        "0: no bound.",
    )
    max_deadline: float = Field(
        300.0, ge=0.1, le=86400, description="How long a call may take that is no stream, in seconds."
    )
    rate_principal: float = Field(
        0.0, ge=0, le=MOST, description="Operations a second of one principal, or address. 0: no bound."
    )
    rate_principal_burst: float = Field(
        0.0, ge=0, le=MOST, description="How many may come at once after a pause. 0: those of a second."
    )
    rate_principal_bytes: float = Field(
        0.0, ge=0, le=MOST, description="Bytes a second, of requests and answers, of one principal. 0: no bound."
    )
    rate_principal_bytes_burst: float = Field(
        0.0, ge=0, le=MOST, description="How many may come at once after a pause. 0: those of a second."
    )
    rate_namespace: float = Field(0.0, ge=0, le=MOST, description="Operations a second in one namespace. 0: no bound.")
    rate_namespace_burst: float = Field(
        0.0, ge=0, le=MOST, description="How many may come at once after a pause. 0: those of a second."
    )
    rate_namespace_bytes: float = Field(
        0.0, ge=0, le=MOST, description="Bytes a second, of requests and answers, in one namespace. 0: no bound."
    )
    rate_namespace_bytes_burst: float = Field(
        0.0, ge=0, le=MOST, description="How many may come at once after a pause. 0: those of a second."
    )
    rate_unauthenticated: float = Field(
        100.0,
        ge=0,
        le=MOST,
        description="Wrong tokens a second of one address, beyond which what it shows is not looked into unless it is "
        "known. 0: no bound.",
    )
    max_connections: int = Field(
        10_000, ge=1, le=1_000_000, description="Connections that each address to listen on has at a time."
    )
    connection_idle: float = Field(
        600.0, ge=1, le=86400, description="How long a connection without calls is kept, in seconds."
    )
    handshake_timeout: float = Field(
        10.0,
        ge=0.1,
        le=3600,
        description="How long a new connection may take to become one of TLS and HTTP/2, in seconds.",
    )
    keepalive_time: float = Field(
        30.0, ge=1, le=86400, description="How long a connection is quiet before the server pings it, in seconds."
    )
    keepalive_timeout: float = Field(
        10.0, ge=0.1, le=3600, description="How long a ping may go unanswered before the connection ends, in seconds."
    )
    keepalive_least: float = Field(
        10.0,
        ge=0,
        le=86400,
        description="Clients that ping a quiet connection more often than after so many seconds are sent away.",
    )
    tls_cert: Path | None = Field(
        None, description="Serve TLS: the PEM file of the server's certificate, and those between it and its authority."
    )
    tls_key: Path | None = Field(None, description="The PEM file of the certificate's private key, not encrypted.")
    tls_client_ca: Path | None = Field(
        None, description="Clients must show a certificate that an authority in this PEM file has signed."
    )
    tokens: Path | None = Field(None, description="The file of those who may call by bearer token: `comity token new`.")
    jwks: Path | None = Field(
        None, description="Bearer tokens may be JWTs, signed by a key of this file, which is a JWK set."
    )
    jwt_issuer: str | None = Field(None, min_length=1, description="The issuer that a JWT must be of.")
    jwt_audience: str | None = Field(None, min_length=1, description="The audience that a JWT must be for.")
    jwt_principal_claim: str = Field("sub", min_length=1, description="The claim of a JWT that names its principal.")
    policy: Path | None = Field(
        None, description="The file that says who may do what; without it all who may call may do everything."
    )
    insecure: bool = Field(
        False, description="Let others than this machine reach the server although it has no TLS or no authentication."
    )
    reflection: bool = Field(True, description="Offer server reflection.")
    channelz: bool = Field(True, description="Offer channelz.")

    limit_key_bytes: int = Field(_limits.key_bytes, ge=1, le=16 * 1024, description="The longest key.")
    limit_value_bytes: int = Field(
        _limits.value_bytes, ge=1, le=64 * 1024 * 1024, description="The largest value. Clients read up to 4 MiB."
    )
    limit_transaction_operations: int = Field(
        _limits.transaction_operations,
        ge=1,
        le=100_000,
        description="The most conditions, and the most operations in each of the two lists of a transaction.",
    )
    limit_transaction_steps: int = Field(
        _limits.transaction_steps, ge=1, description="The most keys and commits that a transaction may look through."
    )
    limit_transaction_bytes: int = Field(
        _limits.transaction_bytes,
        ge=1,
        le=256 * 1024 * 1024,
        description="The most bytes of keys, values and content types in a transaction.",
    )
    limit_commit_events: int = Field(
        _limits.commit_events,
        ge=1,
        le=10_000_000,
        description="The most keys that a prefix delete may change, with what its transaction changed before it.",
    )
    limit_restore_events: int = Field(
        _limits.restore_events,
        ge=1,
        le=100_000_000,
        description="The most keys that a restore or a merge may change.",
    )
    limit_page_entries: int = Field(
        _limits.page_entries, ge=1, le=100_000, description="The most entries, commits or namespaces in a page."
    )
    limit_page_bytes: int = Field(
        _limits.page_bytes, ge=1, le=64 * 1024 * 1024, description="The most bytes in a page, but for its first entry."
    )
    limit_result_bytes: int = Field(
        _limits.result_bytes, ge=1, le=256 * 1024 * 1024, description="The most bytes that a transaction may read."
    )
    limit_previous_bytes: int = Field(
        _limits.previous_bytes,
        ge=0,
        le=256 * 1024 * 1024,
        description="The most bytes of deleted entries that a delete answers with.",
    )
    limit_namespace_keys: int = Field(_limits.namespace_keys, ge=1, description="The most keys in a namespace.")
    limit_namespace_bytes: int = Field(
        _limits.namespace_bytes, ge=1, description="The most bytes in a namespace's newest state."
    )
    limit_namespaces: int = Field(_limits.namespaces, ge=1, description="The most namespaces.")
    limit_checkpoints: int = Field(_limits.checkpoints, ge=0, description="The most checkpoints of a namespace.")
    limit_lease_ttl_least: float = Field(
        _limits.lease_ttl_least, ge=0.1, le=86400, description="The shortest time that a lease may live, in seconds."
    )
    limit_lease_ttl_most: float = Field(
        _limits.lease_ttl_most, ge=0.1, le=1e9, description="The longest time that a lease may live, in seconds."
    )
    limit_leases: int = Field(_limits.leases, ge=0, description="The most leases of a namespace.")
    limit_lease_keys: int = Field(
        _limits.lease_keys, ge=1, le=1_000_000, description="The most keys that may live by one lease."
    )
    limit_fork_depth: int = Field(
        _limits.fork_depth,
        ge=0,
        le=100,
        description="How deep forks of forks may be. A read looks through each, and pages may be as much shorter.",
    )
    limit_request_window: float = Field(
        _limits.request_window,
        ge=600,  # clients retry for half of it, and the Python client for five minutes
        le=7 * 86400,
        description="How long the outcomes of a silent client are remembered, in seconds. At least 600.",
    )
    limit_request_clients: int = Field(
        _limits.request_clients, ge=1, description="The most clients of a namespace with remembered outcomes."
    )
    limit_request_outcomes: int = Field(
        _limits.request_outcomes, ge=1, description="The most outcomes remembered for one client."
    )
    limit_request_bytes: int = Field(
        _limits.request_bytes, ge=1, description="The most bytes of outcomes remembered for one client."
    )
    limit_request_total_bytes: int = Field(
        _limits.request_total_bytes, ge=1, description="The most bytes of outcomes remembered for one namespace."
    )

    retention_commits: int = Field(
        _retention.commits, ge=0, description="How many commits of a namespace are kept. 0: all."
    )
    retention_age: float = Field(
        _retention.age, ge=0, le=1e9, description="How long commits are kept, in seconds. 0: for ever."
    )
    retention_history_bytes: int = Field(
        _retention.history_bytes, ge=0, description="How many bytes of history a namespace keeps. 0: no bound."
    )

    @field_validator("listen", "health_listen", mode="before")
    @classmethod
    def _split(cls, listen: object) -> object:
        if isinstance(listen, str):
            return [address.strip() for address in listen.split(",") if address.strip()]
        return listen

    @field_validator("listen", "health_listen")
    @classmethod
    def _check_addresses(cls, listen: list[str]) -> list[str]:
        for address in listen:
            if not _is_address(address):
                raise ValueError(f"{address!r} is not HOST:PORT")
        return listen

    @field_validator("tls_cert", "tls_key", "tls_client_ca", "tokens", "jwks", "policy", mode="before")
    @classmethod
    def _check_files(cls, path: object) -> object:
        if path == "":
            raise ValueError("names no file")
        return path

    @field_validator("metrics_listen")
    @classmethod
    def _check_metrics_address(cls, metrics_listen: str) -> str:
        if metrics_listen and not _is_address(metrics_listen):
            raise ValueError(f"{metrics_listen!r} is not HOST:PORT")
        return metrics_listen

    @field_validator("otlp_endpoint")
    @classmethod
    def _check_endpoint(cls, otlp_endpoint: str) -> str:
        scheme, _, address = otlp_endpoint.rstrip("/").partition("://")
        if otlp_endpoint and (scheme not in ("http", "https") or not _is_address(address)):
            raise ValueError(f"{otlp_endpoint!r} is not http://HOST:PORT or https://HOST:PORT")
        return otlp_endpoint.rstrip("/")

    def limits(self) -> Limits:
        """The settings that begin with `limit_`."""
        return Limits(**self.under(LIMIT))

    def retention(self) -> Retention:
        """The settings that begin with `retention_`, in which a 0 means that nothing is forgotten for that reason."""
        return Retention(**{name: value or UNBOUNDED for name, value in self.under(RETENTION).items()})

    def under(self, prefix: str) -> dict[str, Any]:
        """The settings whose names begin so, by what follows."""
        return {name.removeprefix(prefix): value for name, value in self if name.startswith(prefix)}


def _is_address(text: str) -> bool:
    match = ADDRESS.fullmatch(text)
    return match is not None and int(match[1]) <= 65535
