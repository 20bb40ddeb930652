"""The URL of a Redis: each of its forms, what is refused, and that no secret gets out of it."""

import re
from pathlib import Path
from typing import Any

import pytest

from comity_server.limits import Limits
from comity_server.stores.redis.url import Target, parse
from comity_server.stores.url import open_store, shown
from tests import servers

DOCS = Path(__file__).parents[2] / "docs"
SECRET = "s3cr3t"
ANYBODY: dict[str, Any] = {"username": None, "password": None}


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("redis://h", Target("single", (("h", 6379),), "comity", "", ANYBODY, {})),
        ("redis://h:1/3?prefix=p.q:r-s_t", Target("single", (("h", 1),), "p.q:r-s_t", "", {**ANYBODY, "db": 3}, {})),
        ("redis://[::1]:2/", Target("single", (("::1", 2),), "comity", "", ANYBODY, {})),
        (
            "redis://u%3A:p%40%2F%3F%23%25+%20é@h",
            Target("single", (("h", 6379),), "comity", "", {"username": "u:", "password": "p@/?#%+ é"}, {}),
        ),
        ("redis://:p@h", Target("single", (("h", 6379),), "comity", "", {**ANYBODY, "password": "p"}, {})),
        (
            "rediss://h?ssl_check_hostname=False",
            Target("single", (("h", 6379),), "comity", "", {**ANYBODY, "ssl": True, "ssl_check_hostname": False}, {}),
        ),
        (
            "redis+sentinel://u:p@a,b:2,[::1]/my%20main/4?sentinel_username=v&sentinel_password=q%26",
            Target(
                "sentinel",
                (("a", 26379), ("b", 2), ("::1", 26379)),
                "comity",
                "my main",
                {"username": "u", "password": "p", "db": 4},
                {"username": "v", "password": "q&"},
            ),
        ),
        ("redis+cluster://a:1,b", Target("cluster", (("a", 1), ("b", 6379)), "comity", "", ANYBODY, {})),
        ("rediss+cluster://a", Target("cluster", (("a", 6379),), "comity", "", {**ANYBODY, "ssl": True}, {})),
    ],
)
def test_forms(url: str, target: Target) -> None:
    assert parse(url) == target


def test_the_examples_of_the_docs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_file", lambda path: path == Path("/etc/ssl/redis-ca.pem"))
    text = "".join((DOCS / name).read_text() for name in ("stores.md", "server.md"))
    examples = re.findall(r"^    comity serve --store '?(redis[^' \n]*)", text, re.MULTILINE)
    assert len(examples) > 7
    assert {parse(url).form for url in examples} == {"single", "sentinel", "cluster"}


def test_files_of_tls(tmp_path: Path) -> None:
    file = tmp_path / "a file"
    file.touch()
    assert parse(f"rediss://h?ssl_ca_certs={file}").connection["ssl_ca_certs"] == str(file)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis:", "HOST"),
        ("redis:h", "HOST"),
        ("redis://", "HOST"),
        ("redis://u:s3cr3t@", "HOST"),
        ("redis://h:", "HOST"),
        ("redis://h:0", "port is out of range"),
        ("redis://h:65536", "port is out of range"),
        ("redis+cluster://a:1,b:999999", "port is out of range"),
        ("redis://h:s3cr3t", "HOST"),
        ("redis://u:s3cr3t/x@h", "HOST"),
        ("redis://u:s3cr3t?x@h", "HOST"),
        ("redis://h?s3cr3t@x", "option"),
        ("redis://h?s3cr3t=1", "option"),
        ("redis://u:[s3cr3t@h", "cannot be read"),
        ("redis://u:s3cr3t\u2100@h", "cannot be read"),
        ("redis://a,b", "one host"),
        ("redis://h/s3cr3t", "database"),
        ("redis://h/-1", "database"),
        ("redis://h/1/s3cr3t", "path"),
        ("redis://h#s3cr3t", "path"),
        ("redis://h?prefix=", "prefix"),
        ("redis://h?prefix={s3cr3t}", "prefix"),
        ("redis://h?ssl_check_hostname=true", "rediss"),
        ("redis://h?sentinel_password=s3cr3t", "redis\\+sentinel"),
        ("rediss://h?ssl_check_hostname=s3cr3t", "true or false"),
        ("rediss://h?ssl_ca_certs=/s3cr3t", "ssl_ca_certs"),
        ("redis+sentinel://h", "service"),
        ("redis+sentinel://a,,b/main", "HOST"),
        ("redis+sentinel://h/main/s3cr3t", "database"),
        ("redis+cluster://h/1", "path"),
        ("redis+unix://u:s3cr3t@h", "does not exist"),
    ],
)
def test_what_is_refused_is_explained_without_secrets(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        open_store(url, Limits())
    error: BaseException | None = refused.value
    assert SECRET not in str(error)
    assert error is not None
    assert error.__suppress_context__ or error.__context__ is None


def test_a_wrong_url_ends_the_server_with_the_setting_named() -> None:
    ended = servers.run("--store", f"redis://u:{SECRET}@h:x")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "store:" in ended.stderr
    assert SECRET not in ended.stderr


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://u:s3cr3t@h/0", "redis://h:6379?prefix=comity"),
        ("rediss://:s3cr3t@[::1]/3?prefix=p", "rediss://[::1]:6379/3?prefix=p"),
        (
            "redis+sentinel://a,b/main/1?sentinel_password=s3cr3t",
            "redis+sentinel://a:26379,b:26379/main/1?prefix=comity",
        ),
        ("rediss+cluster://u:s3cr3t@a,b:1", "rediss+cluster://a:6379,b:1?prefix=comity"),
        ("sqlite:/a/b", "sqlite:/a/b"),
        ("memory:", "memory:"),
    ],
)
def test_what_logs_show(url: str, text: str) -> None:
    assert shown(url) == text
