"""The programs of docs/languages.md. What can be run here is run; of the others each name is looked up."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.polyglot.install import HERE
from tests.polyglot.names import ENUMS, MESSAGES, METHODS, SERVICES, camel, fields, literals, oneofs, snake
from tests.servers import Server

ROOT = HERE.parent.parent
PAGE = (ROOT / "docs" / "languages.md").read_text()
# Of grpc-java, protobuf-java and Java itself.
JAVAS_OWN = {"getStatus", "getCode", "getenv", "hasNext"}
GOS_OWN = {"Close", "Recv", "AppendCertsFromPEM", "Args"}
GO_PACKAGES = {"codes", "comity", "context", "credentials", "fmt", "grpc", "insecure", "log", "metadata", "os"}
GO_PACKAGES |= {"status", "time", "tls", "x509"}
ACCESS = re.compile(rf"(?<![\w.])(?!(?:{'|'.join(GO_PACKAGES)})\.)\w[\w.\[\]()]*\.([A-Z]\w*)")


def programs(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_grpcurl(server: Server, namespace: str, tmp_path: Path) -> None:
    (script,) = programs("bash")
    if shutil.which("grpcurl") is None:
        stand_in = f'grpcurl() {{ (cd "{ROOT}" && "{sys.executable}" -m tests.polyglot.grpcurl "$@"); }}\n'
        script = stand_in + script
    script = script.replace("127.0.0.1:7171", server.address).replace('"research"', f'"{namespace}"')
    env = {"PATH": os.environ["PATH"]}  # and nothing of COMITY_*
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, env=env)
    assert "DeadlineExceeded" in done.stderr.replace("DEADLINE_EXCEEDED", "DeadlineExceeded"), done.stderr
    assert re.findall(r'"revision": "(\d)"', done.stdout)[:3] == ["1", "1", "2"]
    assert done.stdout.count('"type": "EVENT_TYPE_PUT"') == 3


def test_names_in_go() -> None:
    (program,) = programs("go")
    wrappers = {
        f"{name}_{camel(field.name)}": camel(field.name)
        for name, message in MESSAGES.items()
        for members in oneofs(message).values()
        for field in members
    }
    known = {name: {camel(each.name) for each in fields(message)} for name, message in MESSAGES.items()}
    for name, message in MESSAGES.items():
        for oneof, members in oneofs(message).items():
            known[name] -= {camel(each.name) for each in members}
            known[name].add(camel(oneof))
    known |= {wrapper: {field} for wrapper, field in wrappers.items()}
    clients = {f"New{service}Client" for service in SERVICES}
    enums = {f"{enum}_{value.name}" for enum, each in ENUMS.items() for value in each.values}
    used = set(re.findall(r"\bcomity\.(\w+)", program))
    assert used <= known.keys() | clients | enums, used
    assert len(used) > 10

    found = list(literals(program, re.compile(r"(?P<many>\[\]\*)?\bcomity\.(?P<name>\w+)\{")))
    assert len(found) > 10
    for name, named in found:
        assert set(named) <= known[name], (name, named)
        assert named, name
    accessed = set(ACCESS.findall(program))
    every = {camel(each.name) for message in MESSAGES.values() for each in fields(message)}
    assert accessed <= every | {f"Get{name}" for name in every} | METHODS | GOS_OWN, accessed
    assert accessed & METHODS == {"Get", "Put", "Transact", "Watch"}


def test_names_in_java() -> None:
    (program,) = programs("java")
    builders = set(re.findall(r"\b(\w+)\.newBuilder\(\)", program)) - {"TlsChannelCredentials"}
    assert builders <= MESSAGES.keys()
    assert len(builders) > 5
    # Of each builder what is set up to the end of its own chain; what is set deeper is in brackets.
    for name, chain in re.findall(r"\b(\w+)\.newBuilder\(\)((?:\s*\.\w+\([^()]*\))*)", program):
        own = {camel(each.name) for each in fields(MESSAGES[name])} if name in MESSAGES else set()
        for setter in re.findall(r"\.(?:set|add)(\w+)\(", chain):
            assert setter in own, (name, setter)
    every = {camel(each.name) for message in MESSAGES.values() for each in fields(message)}
    read = set(re.findall(r"\.((?:get|has|set|add)\w+)\(", program)) - JAVAS_OWN
    allowed = {f"{verb}{name}" for verb in ("get", "has", "set", "add") for name in every}
    assert read <= allowed | {f"get{name}List" for name in every}, read
    stubs = set(re.findall(r"\b(\w+)Grpc\b", program))
    assert stubs == {"StateService"}


def test_names_in_rust() -> None:
    program = programs("rust")[-1]
    known = {name: {each.name for each in fields(message)} for name, message in MESSAGES.items()}
    for name, message in MESSAGES.items():
        for oneof, members in oneofs(message).items():
            known[name] -= {each.name for each in members}
            known[name].add(oneof)
    code = re.sub(r'b?r#".*?"#', '""', program)
    found = [
        (name, named)
        for name, named in literals(code, re.compile(r"(?P<many>\[)?\b(?P<name>[A-Z]\w+) \{"))
        if name in MESSAGES
    ]
    assert len(found) > 7
    for name, named in found:
        assert set(named) <= known[name], (name, named)
        assert named, name
    modules = {
        (snake(name), camel(oneof)): {camel(each.name) for each in members}
        for name, message in MESSAGES.items()
        for oneof, members in oneofs(message).items()
    }
    paths = re.findall(r"\b([a-z_]+)::([A-Z]\w+)::(\w+)\(", program)
    paths = [path for path in paths if path[0] in {module for module, _ in modules}]
    assert len(paths) == 6
    for module, oneof, variant in paths:
        assert variant in modules[module, oneof], (module, oneof, variant)
    (imported,) = re.findall(r"use comity::\{(.*?)\};", program, re.DOTALL)
    names = set(re.findall(r"\w+", imported)) - {module for module, _ in modules}
    clients = {f"{service}Client" for service in SERVICES} | {f"{snake(service)}_client" for service in SERVICES}
    assert names <= MESSAGES.keys() | clients, names


@pytest.mark.parametrize("change", [("Prefix: ", "Prefx: "), ("Committed", "Comitted"), ("IfVersion:", "IfVersoin:")])
def test_a_name_that_does_not_exist_is_found(change: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.PAGE", PAGE.replace(*change))
    with pytest.raises(AssertionError):
        test_names_in_go()
