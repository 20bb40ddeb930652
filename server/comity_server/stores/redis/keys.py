"""The names of the keys in Redis. All of a namespace have its name as their hash tag, and so lie in one slot.

PREFIX:{NAME}:meta            hash    where the namespace stands: generation, revision, sub, epoch, floor, figures
PREFIX:{NAME}:meta:G          hash    the same of a deleted generation that forks share
PREFIX:{NAME}:log:G           stream  what happened, an entry a group; the id is REVISION-SUB, where it led to
PREFIX:{NAME}:base:G          hash    versions of keys, and what commits said, that the log has no more
PREFIX:{NAME}:checkpoints:G   hash    checkpoints, and what forks hold, as of the last compaction
PREFIX:{NAME}:heirs:G         set     forks that share a deleted generation
PREFIX:{NAME}:requests        hash    remembered outcomes, as of the last compaction
PREFIX:{NAME}:leases:G        hash    the leases that live, by their ids: TTL ENDS_WITH_KEYS CREATE_TIME AUTHOR, in µs
PREFIX:{NAME}:deadlines:G     zset    their ids, by until when they live: µs since 1970, by the clock of Redis
PREFIX:{NAME}:compactor       string  there while a server compacts it which had to load it for that
PREFIX:{NAME}:staged:TOKEN    hash    the pieces of an entry of the log that is too large to be in it
PREFIX:{NAME}:large:G         hash    the tokens of such entries, and the place in the log of each
PREFIX:{NAME}:incoming        hash    who copies the namespace from another store, and what it is to be a fork of
PREFIX:{NAME}:incoming:…      …       its log, base, checkpoints, requests, large, leases, deadlines, until all is there
PREFIX:{NAME}:coming          set     deleted generations that are copied here, until a fork that shares them is there
PREFIX:names                  zset    the names of namespaces, in order
PREFIX:expiries               zset    the names of those that have leases, by when to look which have run out
PREFIX:epoch                  string  another one for each history of the whole
PREFIX:probes, PREFIX:probes:N  string  to try whether Redis takes writes; on a Cluster each primary has one
"""


class Keys:
    """Of one namespace."""

    def __init__(self, prefix: str, namespace: str) -> None:
        self._tagged = f"{prefix}:{{{namespace}}}"
        self.meta = f"{self._tagged}:meta"
        self.requests = f"{self._tagged}:requests"
        self.compactor = f"{self._tagged}:compactor"

    def buried(self, generation: int) -> str:
        return f"{self.meta}:{generation}"

    def log(self, generation: int) -> str:
        return f"{self._tagged}:log:{generation}"

    def base(self, generation: int) -> str:
        return f"{self._tagged}:base:{generation}"

    def checkpoints(self, generation: int) -> str:
        return f"{self._tagged}:checkpoints:{generation}"

    def heirs(self, generation: int) -> str:
        return f"{self._tagged}:heirs:{generation}"

    def large(self, generation: int) -> str:
        return f"{self._tagged}:large:{generation}"

    def leases(self, generation: int) -> str:
        return f"{self._tagged}:leases:{generation}"

    def deadlines(self, generation: int) -> str:
        return f"{self._tagged}:deadlines:{generation}"

    @property
    def incoming(self) -> str:
        return f"{self._tagged}:incoming"

    @property
    def coming(self) -> str:
        return f"{self._tagged}:coming"

    def incoming_part(self, part: str) -> str:
        return f"{self.incoming}:{part}"

    def staged(self, token: str) -> str:
        return f"{self._tagged}:staged:{token}"


def name_of(prefix: str, meta: str) -> str:
    """The namespace whose meta is under a key."""
    return meta.removeprefix(f"{prefix}:{{").removesuffix("}:meta")


def metas(prefix: str, beginning: str) -> str:
    """A pattern of the metas of all namespaces whose names begin so, existing and deleted."""
    return f"{prefix}:{{{beginning}*}}:meta"


def names(prefix: str) -> str:
    return f"{prefix}:names"


def expiries(prefix: str) -> str:
    return f"{prefix}:expiries"


def epoch(prefix: str) -> str:
    return f"{prefix}:epoch"


def probes(prefix: str, number: int = 0) -> str:
    return f"{prefix}:probes:{number}" if number else f"{prefix}:probes"
