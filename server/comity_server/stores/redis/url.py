"""The URL of a Redis, in each of its forms, and what it asks for.

    redis://[USER:PASSWORD@]HOST[:PORT][/DB]                        one server
    redis+sentinel://[USER:PASSWORD@]HOST[:PORT][,…]/SERVICE[/DB]   the primary that Sentinels name
    redis+cluster://[USER:PASSWORD@]HOST[:PORT][,…]                 a Cluster, by some of its nodes

With `rediss` in place of `redis` the connections are TLS. Options follow after a `?`: `ssl_ca_certs`, `ssl_certfile`,
`ssl_keyfile` (files), `ssl_check_hostname` (true, false), `sentinel_username` and `sentinel_password`; and `prefix`,
which every key begins with ("comity"), so that several stores may share a Redis.
"""

import re
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

Form = Literal["single", "sentinel", "cluster"]

FORMS: Final[dict[str, tuple[Form, bool]]] = {
    "redis": ("single", False),
    "rediss": ("single", True),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
PORTS: Final = {"single": 6379, "sentinel": 26379, "cluster": 6379}
TLS_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
SENTINEL: Final = ("sentinel_username", "sentinel_password")
OPTIONS: Final = ("prefix", *TLS_FILES, "ssl_check_hostname", *SENTINEL)
PREFIX: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")


class Target(NamedTuple):
    """Where a Redis is, and how to speak to it."""

    form: Form
    hosts: tuple[tuple[str, int], ...]
    prefix: str
    service: str  # of Sentinels
    connection: dict[str, Any]  # keyword arguments of a connection to a data node
    sentinel: dict[str, Any]  # likewise, of a connection to a Sentinel

    def __str__(self) -> str:
        """The URL without secrets and options, for logs."""
        tls = "rediss" if self.connection.get("ssl") else "redis"
        scheme = tls if self.form == "single" else f"{tls}+{self.form}"
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        path = [*([self.service] if self.service else []), *([str(self.connection["db"])] if self.database else [])]
        return f"{scheme}://{'/'.join([hosts, *path])}?prefix={self.prefix}"

    @property
    def database(self) -> int:
        return int(self.connection.get("db", 0))


def parse(url: str) -> Target:
    """Raises ValueError, which says what is wrong and quotes nothing: any part may be a secret in the wrong place."""
    try:
        parts = urlsplit(url)
    except ValueError:  # its text has the password
        raise ValueError(
            "the URL cannot be read: in names and passwords, what is not a letter or a digit is %XX"
        ) from None
    form, tls = FORMS[parts.scheme]
    credentials, _, addresses = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    prefix = options.pop("prefix", "comity")
    if not PREFIX.fullmatch(prefix):
        raise ValueError(f"prefix must match {PREFIX.pattern}")
    hosts = tuple(_host(address, PORTS[form]) for address in addresses.split(","))
    if form == "single" and len(hosts) > 1:
        raise ValueError("redis:// takes one host: several are redis+sentinel:// or redis+cluster://")
    path = [part for part in parts.path.split("/") if part]
    service = ""
    if form == "sentinel":
        if not path:
            raise ValueError("redis+sentinel:// names a service after the hosts: redis+sentinel://HOST/SERVICE")
        service = unquote(path.pop(0))
    connection: dict[str, Any] = {"username": unquote(username) or None, "password": unquote(password) or None}
    if path and form != "cluster":
        connection["db"] = _db(path.pop(0))
    if path or parts.fragment:
        raise ValueError("there is something after the path's end")
    if form != "sentinel" and any(name in options for name in SENTINEL):
        raise ValueError("sentinel_username and sentinel_password go with redis+sentinel://")
    sentinel = {name.removeprefix("sentinel_"): options.pop(name) for name in list(options) if name in SENTINEL}
    connection |= _tls(options, tls)
    if options:
        raise ValueError(f"an option is not one of {', '.join(OPTIONS)}")
    return Target(form, hosts, prefix, service, connection, sentinel)


def _host(address: str, port: int) -> tuple[str, int]:
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:\s]+)(?::([0-9]{1,20}))?", address)
    if match is None:
        raise ValueError("after the scheme and [USER:PASSWORD@] follows HOST or HOST:PORT")
    port = int(match[2] or port)
    if not 0 < port <= 65535:
        raise ValueError("the port is out of range: it is 1 to 65535")
    return match[1].strip("[]"), port


def _db(text: str) -> int:
    if not text.isdecimal() or int(text) > 1_000_000:
        raise ValueError("the database is a number")
    return int(text)


def _tls(options: dict[str, str], tls: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"ssl": True} if tls else {}
    for name in TLS_FILES:
        if name in options:
            found[name] = options.pop(name)
            if not Path(found[name]).is_file():
                raise ValueError(f"{name} does not name a file")
    if "ssl_check_hostname" in options:
        said = options.pop("ssl_check_hostname").lower()
        if said not in ("true", "false"):
            raise ValueError("ssl_check_hostname is true or false")
        found["ssl_check_hostname"] = said == "true"
    if not tls and found:
        raise ValueError(f"{next(iter(found))} goes with rediss://")
    return found
