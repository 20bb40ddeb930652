"""What a namespace is made of, in the order in which it is written down."""

from collections.abc import Iterator, Sequence
from operator import itemgetter

from comity_server.limits import Limits
from comity_server.model import Commit, Outcome
from comity_server.record import MOD_REVISION, Record
from comity_server.stores.memory.namespace import Namespace
from comity_server.stores.memory.requests import Requests
from comity_server.stores.outcomes import encode


def base_records(state: Namespace) -> Sequence[Record]:
    """The versions whose commits are in the log no more, in the order of their revisions."""
    versions, base = state.versions, state.log.base
    chains = map(versions.chain, versions.own_keys())
    return sorted((one for chain in chains for one in chain if one[MOD_REVISION] <= base), key=itemgetter(MOD_REVISION))


def batches(commits: Iterator[Commit], *, events: int) -> Iterator[Sequence[Commit]]:
    """Commits next to each other: about so many events at a time."""
    some: list[Commit] = []
    left = events
    for commit in commits:
        if some and left < len(commit.events):
            yield some
            some, left = [], events
        some.append(commit)
        left -= 1 + len(commit.events)
    if some:
        yield some


def together(own: Requests, others: Requests) -> Requests:
    """What both remember. Where they differ, the others know better."""
    made = Requests(Limits())
    known = {name: (awaited, says, outcomes) for name, awaited, says, outcomes in others.all()}
    for name, awaited, says, outcomes in own.all():
        more_awaited, more_says, more = known.get(name, (0, False, {}))
        known[name] = (max(awaited, more_awaited), says or more_says, {**outcomes, **more})
    for name, (awaited, says, outcomes) in known.items():
        client = made.load(name, awaited, says, 0.0)
        for sequence in sorted(outcomes):
            if sequence >= awaited:
                one = outcomes[sequence]
                made.load_outcome(client, sequence, one.fingerprint, one.outcome)
    return made


def same_outcome(one: Outcome, other: Outcome) -> bool:
    """Whether a repeat is answered the same: what is a list and what a tuple says nothing."""
    return one.revision == other.revision and encode(one) == encode(other)
