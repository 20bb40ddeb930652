"""What a policy says and can hardly mean. A server takes it all the same, and tells."""

from collections.abc import Iterator

from comity_server.access.policy import Policy
from comity_server.names import ANONYMOUS


def hints(policy: Policy, *, authenticates: bool = True) -> Iterator[str]:
    """One line for each such thing.

    authenticates: whether the server asks who calls.
    """
    rules = policy.document.rules
    if not rules:
        yield "no rule allows anything, so nobody may do anything"
    elif not (authenticates or policy.knows_anonymous):
        yield (
            f"nobody may do anything: there is no authentication (--tokens, --jwks or --tls-client-ca), so that"
            f" everybody is {ANONYMOUS!r}, of which there is no rule"
        )
    for number, rule in enumerate(rules, 1):
        for place, prefix in enumerate(rule.prefixes):
            if "*" in prefix:
                which = f"rule {number}, prefixes[{place}]"
                yield f"{which}: '*' stands for itself in a prefix, after which all is free anyway"
    for number, figure, by in policy.shadows:
        before = " and ".join(f"limit {each}" for each in by)
        yield (
            f"limit {number}, {figure}: never holds, as {before} before it"
            f" {'has' if len(by) == 1 else 'have'} one for all the same names: put the narrower first"
        )
