"""Settings: which source wins, what is refused and how, and where the server listens."""

import json
import re
import socket
import subprocess
from pathlib import Path

import grpc
import psutil
import pytest
from pydantic_core import PydanticUndefined

from comity.v1 import state_pb2 as s
from comity_server.limits import Limits, Retention
from comity_server.listening import ListenError
from comity_server.server import Server
from comity_server.settings import Settings, SettingsError
from comity_server.sources import load, unknown
from tests import servers
from tests.waiting import until
from tests.wire.calls import Wire
from tests.wire.inprocess import HeldStore

FILE = """
listen = ["127.0.0.1:0"]
limit_key_bytes = 30
limit_page_entries = 30
limit_transaction_operations = 30
"""

LINKS = {  # what is there beside a service `comity`, and one `comity-policy`
    "COMITY_PORT": "tcp://10.0.0.1:7171",
    "COMITY_PORT_7171_TCP": "tcp://10.0.0.1:7171",
    "COMITY_PORT_7171_TCP_ADDR": "10.0.0.1",
    "COMITY_SERVICE_HOST": "10.0.0.1",
    "COMITY_SERVICE_PORT": "7171",
    "COMITY_SERVICE_PORT_GRPC": "7171",
    "COMITY_POLICY_PORT": "tcp://10.0.0.2:80",
    "COMITY_POLICY_PORT_80_TCP_PROTO": "tcp",
    "COMITY_POLICY_SERVICE_HOST": "10.0.0.2",
    "COMITY_POLICY_SERVICE_PORT_HTTP": "80",
    "COMITY_NAME": "/web/comity",
    "COMITY_ENV_PATH": "/bin",
}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"COMITY_{name.upper()}", raising=False)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "comity.toml"
    path.write_text(FILE)
    return path


def test_a_flag_wins_over_a_variable_over_the_file_over_the_default(config: Path) -> None:
    env = {"COMITY_LISTEN": None, "COMITY_LIMIT_KEY_BYTES": "20", "COMITY_LIMIT_PAGE_ENTRIES": "20"}
    with (
        servers.start("--config", str(config), "--limit-key-bytes", "10", env=env) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        wire = Wire(channel)
        for key, fits in (("k" * 10, True), ("k" * 11, False)):
            request = s.GetRequest(namespace="n", key=key)
            assert fits is (wire.call(request) is not None) if fits else wire.refused(request).fields["key"]
        for number in range(25):
            wire.put("n", f"{number}")
        assert len(wire.call(s.ListRequest(namespace="n")).entries) == 20
        get = s.Operation(get=s.GetOperation(key="k"))
        assert "30" in wire.refused(s.TransactRequest(namespace="n", then=[get] * 31)).fields["then"]
        assert wire.call(s.PutRequest(namespace="n", key="v", value=bytes(1024 * 1024))).version == 1


def test_every_source_gives_every_kind_of_setting(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text('log_level = "debug"\nreflection = false\nretention_age = 5\nretention_commits = 0\n')
    monkeypatch.setenv("COMITY_CHANNELZ", "false")
    monkeypatch.setenv("COMITY_LISTEN", "a.example:1, [::1]:2,")
    monkeypatch.setenv("COMITY_DRAIN_TIMEOUT", "")  # as good as not set
    settings = load({"progress_interval": "0.5", "log_level": "error"}, config)
    assert (settings.log_level, settings.reflection, settings.channelz) == ("error", False, False)
    assert (settings.progress_interval, settings.drain_timeout) == (0.5, 30.0)
    assert settings.listen == ["a.example:1", "[::1]:2"]
    assert settings.retention().age == 5
    assert settings.retention().commits > 10**12
    assert load({"listen": ("a.example:3",)}, config).listen == ["a.example:3"]


def test_it_listens_on_loopback_unless_told_otherwise() -> None:
    assert load({}).listen == ["127.0.0.1:7171"]


def test_every_limit_is_a_setting_with_its_default() -> None:
    for prefix, figures in (("limit_", Limits()), ("retention_", Retention())):
        names = {name.removeprefix(prefix) for name in Settings.model_fields if name.startswith(prefix)}
        assert names == set(figures._fields) - {"share"}, "which the tables of a policy alone have"
    assert (load({}).limits(), load({}).retention()) == (Limits(), Retention())


def test_help_shows_every_setting() -> None:
    shown = servers.run("--help")
    assert shown.returncode == 0
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in shown.stdout
        assert field.description
        assert field.get_default(call_default_factory=True) is not PydanticUndefined


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("listen", "nothing"), ("listen", "127.0.0.1:65536"), ("listen", "::1:7171"), ("listen", "127.0.0.1:"),
        ("listen", ":7171"), ("listen", "a:1/b"), ("listen", "127.0.0.1:-1"), ("log_level", "loud"),
        ("log_format", "xml"), ("drain_timeout", "soon"), ("drain_timeout", "-1"), ("drain_timeout", "nan"),
        ("drain_timeout", "inf"), ("progress_interval", "0"), ("max_pending", "0"), ("max_pending", "1.5"),
        ("reflection", "maybe"), ("limit_key_bytes", "0"), ("limit_value_bytes", "1 MiB"), ("retention_age", "-1"),
        ("retention_commits", "-1"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_its_source(
    config: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    with pytest.raises(SettingsError, match=f"^--{name.replace('_', '-')}: ") as refused:
        load({name: [value] if name == "listen" else value})
    assert "\n" not in str(refused.value)
    config.write_text(f"{name} = {json.dumps([value] if name == 'listen' else value)}\n")
    with pytest.raises(SettingsError, match=f"^{config}: {name}: "):
        load({}, config)
    monkeypatch.setenv(f"COMITY_{name.upper()}", value)
    with pytest.raises(SettingsError, match=f"^COMITY_{name.upper()}: "):
        load({})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"limit_lease_ttl_least": 9, "limit_lease_ttl_most": 5},
            "limit_lease_ttl_least: 9.0 is above limit_lease_ttl_most",
        ),
        ({"limit_lease_ttl_most": 0.5}, "limit_lease_ttl_most: 0.5 is below limit_lease_ttl_least"),
        ({"limit_value_bytes": 5_000_000}, "limit_value_bytes: 5000000 is above limit_transaction_bytes"),
        ({"max_connection_bytes": 1}, "max_connection_bytes: 1 is below limit_transaction_bytes"),
        ({"max_bytes": 4_000_000}, "max_bytes: 4000000 is below limit_transaction_bytes"),
        ({"rate_principal_burst": 5}, "rate_principal_burst: is of no use without rate_principal"),
    ],
)
def test_settings_that_do_not_go_together_are_named_alike(
    config: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, float], said: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        load(given)
    assert str(refused.value).startswith(re.sub(r"[a-z]\w+_\w+", lambda name: "--" + name[0].replace("_", "-"), said))
    config.write_text("".join(f"{name} = {value}\n" for name, value in given.items()))
    with pytest.raises(SettingsError) as refused:
        load({}, config)
    assert str(refused.value).startswith(f"{config}: {said}")
    for name, value in given.items():
        monkeypatch.setenv(f"COMITY_{name.upper()}", str(value))
    with pytest.raises(SettingsError) as refused:
        load({})
    assert str(refused.value).startswith(re.sub(r"[a-z]\w+_\w+", lambda name: "COMITY_" + name[0].upper(), said))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("drain_timeout", "soon", "'soon' is not a number"),
        ("drain_timeout", "nan", "'nan' must be at most 3600.0"),
        ("drain_timeout", "-1", "'-1' must be at least 0.0"),
        ("drain_timeout", "3601", "'3601' must be at most 3600.0"),
        ("max_pending", "1.5", "'1.5' is not a whole number"),
        ("max_pending", "many", "'many' is not a whole number"),
        ("reflection", "maybe", "'maybe' is neither true nor false"),
        ("log_level", "loud", "'loud' is not 'debug', 'info', 'warning' or 'error'"),
        ("store", "", "'' is empty"),
        ("listen", [], "[] is empty"),
        ("listen", 7171, "7171 is not a list"),
        ("store", 5, "5 is not text"),
    ],
)
def test_what_is_wrong_with_a_value(name: str, value: object, said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load({name: value})
    assert str(refused.value) == f"--{name.replace('_', '-')}: {said}"


def test_a_variable_that_is_misspelt_is_warned_of() -> None:
    env = {
        "COMITY_DRIAN_TIMEOUT": "1",
        "COMITY_WHATEVER": "1",
        "COMITY_SERVICE_HOST": "10.0.0.1",
        "COMITY_AUTHOR": "ann",
        "COMITY_TOKEN_FILE": "/run/secrets/token",
        "COMITY_TLS_CA": "/etc/comity/ca.pem",
        "COMITY_TLS_CLIENT_CERT": "/etc/comity/client.pem",
        "COMITY_TLS_CLIENT_KEY": "/etc/comity/client.key",
    }
    with servers.start(env=env) as server:
        logged = [json.loads(line) for line in server.log().splitlines()]
    warned = {line["name"]: line.get("meant") for line in logged if line["level"] == "warning"}
    assert warned == {"COMITY_DRIAN_TIMEOUT": "COMITY_DRAIN_TIMEOUT", "COMITY_WHATEVER": None}
    names = ["PATH", "comity_max_pending", "COMITY_CONFIG", "COMITY_SOAK"]
    assert list(unknown(dict.fromkeys(names, "1") | LINKS)) == []


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("COMITY_POLICYS", "COMITY_POLICY"),
        ("COMITY_POLICIES", "COMITY_POLICY"),
        ("COMITY_POLICY_FILE", "COMITY_POLICY"),
        ("Comity_Polcy", "COMITY_POLICY"),
        ("COMITY_TOKNES", "COMITY_TOKENS"),
        ("COMITY_TOKENS_FILE", "COMITY_TOKENS"),
        ("COMITY_JWKS_URL", "COMITY_JWKS"),
        ("COMITY_JWT_AUDIENC", "COMITY_JWT_AUDIENCE"),
        ("COMITY_TLSCERT", "COMITY_TLS_CERT"),
        ("COMITY_TLS_KEYS", "COMITY_TLS_KEY"),
        ("COMITY_TLS_CLIENT_CAS", "COMITY_TLS_CLIENT_CA"),
        ("COMITY_RATE_NAMESPACES", "COMITY_RATE_NAMESPACE"),
    ],
)
def test_a_variable_that_may_have_been_meant_to_protect_is_refused(
    variable: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "x")
    with pytest.raises(SettingsError) as refused:
        load({})
    assert str(refused.value).startswith(f"{variable}: there is no such setting: if {meant} is meant, ")


def test_a_server_does_not_start_without_what_was_to_protect_it() -> None:
    ended = servers.run("--listen", "127.0.0.1:0", "--store", "memory:", env={"COMITY_POLICYS": "p.toml"})
    assert ended.returncode == 2
    assert "COMITY_POLICYS: there is no such setting: if COMITY_POLICY is meant" in ended.stderr


def test_a_variable_that_is_like_a_setting_that_is_given_is_somebody_elses(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMITY_POLICYS", "x")
    assert load({"policy": Path("p.toml")}).policy == Path("p.toml")
    config.write_text("policy = 'q.toml'")
    assert load({}, config).policy == Path("q.toml")
    monkeypatch.setenv("COMITY_POLICY", "r.toml")
    assert load({}).policy == Path("r.toml")


def test_variables_of_clients_and_of_platforms_hinder_no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    others = ("COMITY_TOKEN", "COMITY_TOKEN_FILE", "COMITY_TLS", "COMITY_TLS_CA", "COMITY_TLS_CLIENT_KEY", "COMITY_URL")
    for name, value in (dict.fromkeys(others, "x") | LINKS).items():
        monkeypatch.setenv(name, value)
    assert load({}) == Settings()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_pendng = 5", "max_pendng: there is no such setting"),
        ("[limits]\nkey_bytes = 5", "limits: there is no such setting"),
        ("max_pending = [5]", "max_pending: "),
        ("listen = 7171", "listen: "),
        ("max_pending = ", "Invalid value"),
        ("a = 1\nb = ]", "line 2"),
        ("\ud800", "utf-8"),
    ],
)
def test_a_wrong_file_is_refused(config: Path, text: str, said: str) -> None:
    config.write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(SettingsError, match=said) as refused:
        load({}, config)
    assert str(refused.value).startswith(f"{config}: ")
    assert "\n" not in str(refused.value)


def test_a_file_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        load({}, tmp_path / "nothing.toml")


def one_line(ended: subprocess.CompletedProcess[str]) -> str:
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    return line


def test_a_wrong_setting_is_a_wrong_usage(config: Path) -> None:
    config.write_text("max_pending = 0\n")
    for ended, said in (
        (servers.run("--max-pending", "0"), "--max-pending: "),
        (servers.run(env={"COMITY_MAX_PENDING": "0"}), "COMITY_MAX_PENDING: "),
        (servers.run("--config", str(config)), f"{config}: max_pending: "),
        (servers.run(env={"COMITY_CONFIG": str(config)}), f"{config}: max_pending: "),
        (servers.run("--store", "nothing"), "nothing"),
        (servers.run("--store", "nothing:"), "nothing:"),
    ):
        assert ended.returncode == 2
        assert said in one_line(ended)


def test_an_address_that_cannot_be_listened_on() -> None:
    with servers.start() as server:
        taken = servers.run("--listen", server.address)
    assert taken.returncode == 1
    assert server.address in one_line(taken)
    assert "in use" in one_line(taken)
    for address in ("no-such-host.invalid:7171", "192.0.2.1:7171"):
        ended = servers.run("--listen", address, "--insecure")
        assert ended.returncode == 1
        assert address in one_line(ended)


def listening() -> set[int]:
    """The ports on which this process listens."""
    connections = psutil.Process().net_connections("tcp")
    return {connection.laddr.port for connection in connections if connection.status == psutil.CONN_LISTEN}


async def test_a_failed_start_leaves_nothing_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        before = listening()
        settings = Settings(listen=["127.0.0.1:0", f"127.0.0.1:{taken.getsockname()[1]}"])
        store = HeldStore(settings.limits())
        with pytest.raises(ListenError):
            await Server(settings, store).start()
        assert store.closed
        await until(lambda: listening() == before, seconds=10)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_several_addresses() -> None:
    addresses = ["127.0.0.1:0", "localhost:0", *(["[::1]:0"] if has_ipv6() else [])]
    arguments = [argument for address in addresses for argument in ("--listen", address)]
    with servers.start(*arguments) as server:
        assert [one.rpartition(":")[0] for one in server.addresses] == [one.rpartition(":")[0] for one in addresses]
        assert all(int(one.rpartition(":")[2]) > 0 for one in server.addresses)
        for number, address in enumerate(server.addresses):
            with grpc.insecure_channel(address) as channel:
                assert Wire(channel).put("n", "k") == number + 1


def test_the_log_is_json_where_nobody_looks_and_text_on_request() -> None:
    with servers.start() as server:
        server.stop()
        lines = [json.loads(line) for line in server.log().splitlines()]
    assert [line["event"] for line in lines] == ["serving", "draining", "stopped"]
    assert all(line["timestamp"] and line["level"] == "info" for line in lines)
    with servers.start("--log-format", "console", "--log-level", "error") as server:
        server.stop()
        assert server.log() == ""
    with servers.start("--log-format", "console") as server:
        server.stop()
        assert "serving" in server.log()
        assert not server.log().startswith("{")


def test_a_restart_has_the_same_port() -> None:
    with servers.start() as server:
        before = server.address
        server.kill()
        server.restart()
        assert server.address == before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"listen": ["h:1", "h:1"]}, "--listen: h:1 is named twice"),
        ({"listen": ["[::1]:1", "h:0", "[::1]:01"]}, "--listen: [::1]:01 is named twice"),
        ({"health_listen": ["{}:1", "{}:1"]}, "--health-listen: {}:1 is named twice"),
        ({"health_listen": ["127.0.0.1:7171"]}, "--health-listen: 127.0.0.1:7171 is named by --listen, too"),
        (
            {"listen": ["h:1"], "health_listen": ["h:2"], "metrics_listen": "H:2"},
            "--metrics-listen: H:2 is named by --health-listen, too",
        ),
        ({"listen": ["h:0", "h:0"], "health_listen": ["h:0"], "metrics_listen": "h:0"}, None),
        ({"listen": ["h:1", "g:1"], "health_listen": ["h:2"], "metrics_listen": "h:3"}, None),
    ],
)
def test_an_address_is_named_once(given: dict[str, object], said: str | None) -> None:
    if said is None:
        load(given)
    else:
        with pytest.raises(SettingsError) as refused:
            load(given)
        assert str(refused.value) == said
