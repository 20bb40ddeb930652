"""Where settings come from: a flag wins over COMITY_*, that over the file of `--config`, that over the default."""

import difflib
import os
import re
import tomllib
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource

from comity_server.fitting import misfits
from comity_server.settings import PREFIX, Settings, SettingsError

OTHERS = (  # variables that are not settings: most are the client's
    *("CONFIG", "ADDRESS", "NAMESPACE", "AUTHOR", "DEBUG", "SOAK"),
    *("TLS", "TLS_CA", "TLS_CLIENT_CERT", "TLS_CLIENT_KEY", "TLS_SERVER_NAME", "TOKEN", "TOKEN_FILE"),
)
# What Kubernetes and Docker give to each container beside a service of that name; Kubernetes also beside one whose name
# goes on after a hyphen.
LINKS = re.compile(r"(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)|PORT|NAME|ENV_\w+")
LINKED = re.compile(r"(tcp|udp|sctp)://\S*")  # the value of one that ends with _PORT
PROTECTING = (  # settings that keep others out or back, and are none unless set
    *("tls_cert", "tls_key", "tls_client_ca", "tokens", "policy"),
    *("jwks", "jwt_issuer", "jwt_audience", "jwt_principal_claim"),
    *("rate_principal", "rate_principal_bytes", "rate_namespace", "rate_namespace_bytes"),
)
CLOSE = 0.7  # of two names: a letter that is missing, doubled or in another place


def load(flags: Mapping[str, Any], config: Path | None = None) -> Settings:
    """Bring the settings together, given the flags that were set. Raises SettingsError if one is wrong."""
    file = _read(config) if config is not None else {}
    variables = EnvSettingsSource(Settings)()
    _check_empty(os.environ, flags)
    _check_misspelt(os.environ, {*file, *variables, *flags})

    def source(name: str, like: str | None = None) -> str:
        """What a setting is called where it was set, or where `like` was."""
        where = like or name
        if where in flags:
            return "--" + name.replace("_", "-")
        if where in variables:
            return PREFIX + name.upper()
        return name if like else f"{config}: {name}"

    try:
        settings = Settings(**{**file, **variables, **flags})
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsError(f"{source(str(first['loc'][0]))}: {_explain(first)}") from None
    for name, other, problem in misfits(settings):
        raise SettingsError(f"{source(name)}: {problem.format(source(other, like=name))}")
    return settings


def unknown(variables: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The variables that look like settings and are none, each with the setting that was probably meant, or nothing."""
    for name, rest in _strangers(variables):
        yield name, "".join(PREFIX + near for near in difflib.get_close_matches(rest, _known(), 1))


def _known() -> list[str]:
    return [*map(str.upper, Settings.model_fields), *OTHERS]


def _strangers(variables: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The variables that look like settings and are none, and what follows the prefix in capitals."""
    known = _known()
    for name, value in variables.items():
        rest = name.upper().removeprefix(PREFIX)
        if rest == name.upper() or rest in known or LINKS.fullmatch(rest):
            continue
        if not (rest.endswith("_PORT") and LINKED.fullmatch(value)):
            yield name, rest


def _check_misspelt(variables: Mapping[str, str], given: Container[str]) -> None:
    """A variable that is no setting is for somebody else, but for one whose name is nearly that of a setting without
    which everybody may do more, and which is not given. Raises SettingsError."""
    missing = [name.upper() for name in PROTECTING if name not in given]
    for name, rest in _strangers(variables):
        near = [each for each in missing if rest.startswith(f"{each}_")]
        near += difflib.get_close_matches(rest, [*missing, *OTHERS], 1, CLOSE)
        if near and near[0] in missing:
            raise SettingsError(
                f"{name}: there is no such setting: if {PREFIX}{near[0]} is meant, which protects the server, name it"
                " so; else unset it, or give it another name"
            )


def _check_empty(variables: Mapping[str, str], flags: Mapping[str, Any]) -> None:
    """An empty variable is as good as none, but for those without which everybody may do more: what was to fill it may
    have failed. Raises SettingsError."""
    for variable, value in variables.items():
        name = variable.lower().removeprefix(PREFIX.lower())
        if not value and variable.upper() == PREFIX + name.upper() and name in PROTECTING and name not in flags:
            raise SettingsError(f"{variable}: is empty: say what it is to be, or unset it to do without")


def _read(config: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(config.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"{config}: {error.strerror}") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise SettingsError(f"{config}: {error}") from None


def _explain(error: ErrorDetails) -> str:
    """What is wrong with a setting, in other words than those for programmers."""
    match error["type"]:
        case "extra_forbidden":
            return "there is no such setting"
        case "value_error":
            return error["msg"].removeprefix("Value error, ")
        case "float_parsing" | "float_type" | "finite_number":
            wrong = "is not a number"
        case "int_parsing" | "int_type" | "int_from_float" | "int_parsing_size":
            wrong = "is not a whole number"
        case "bool_parsing" | "bool_type":
            wrong = "is neither true nor false"
        case "string_type":
            wrong = "is not text"
        case "list_type":
            wrong = "is not a list"
        case "too_short" | "string_too_short":
            wrong = "is empty"
        case "greater_than_equal":
            wrong = f"must be at least {error['ctx']['ge']}"
        case "less_than_equal":
            wrong = f"must be at most {error['ctx']['le']}"
        case "literal_error":
            wrong = f"is not {error['ctx']['expected']}"
        case _:
            wrong = error["msg"].replace("Input should", "should")
    return f"{error['input']!r} {wrong}"
