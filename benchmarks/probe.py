"""Asks a server for something tiny, over and over, from a process of its own: how long it takes tells of stalls."""

import contextlib
import multiprocessing
import statistics
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import NamedTuple

import grpc

from comity.v1 import state_pb2, state_pb2_grpc

PAUSE_SECONDS = 0.001
NAMESPACE = "probe"  # which nothing else uses


class Latency(NamedTuple):
    """Of the calls that were in progress within some time, in seconds."""

    calls: int
    median: float
    longest: float


class Probe:
    """What was asked, once the block of `probing` has ended."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, float]] = []  # when each began, by the monotonic clock, and how long it took

    def during(self, begin: float, end: float) -> Latency:
        taken = [took for began, took in self.calls if began <= end and began + took >= begin]
        if not taken:
            raise RuntimeError("the probe was not heard of")
        return Latency(len(taken), statistics.median(taken), max(taken))


@contextlib.contextmanager
def probing(address: str) -> Iterator[Probe]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_ask, args=(address, theirs), daemon=True)
    process.start()
    probe = Probe()
    ours.recv()  # it has begun
    try:
        yield probe
    finally:
        ours.send(None)
        probe.calls += ours.recv()
        process.join()


def _ask(address: str, pipe: Connection) -> None:
    calls: list[tuple[float, float]] = []
    request = state_pb2.GetRequest(namespace=NAMESPACE, key="k")
    with grpc.insecure_channel(address) as channel:
        get = state_pb2_grpc.StateServiceStub(channel).Get
        for _ in range(10):
            get(request)
        pipe.send(None)
        while not pipe.poll():
            began = time.monotonic()
            get(request)
            calls.append((began, time.monotonic() - began))
            time.sleep(PAUSE_SECONDS)
    pipe.send(calls)
