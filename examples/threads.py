"""Eight plain threads go through the same list of pages, and none of them is done twice.

Run it with `python examples/threads.py`: it starts a server, and threads that each claim a page by a put that succeeds
only for the first of them, count its words, and add these to a sum that all share. There is no async and no lock in it;
what the threads ask for at the same time shares messages to the server.
"""

from concurrent.futures import ThreadPoolExecutor

import comity
from own_server import own_server

THREADS = 8
PAGES = {f"page-{number:02}": "so it goes " * number for number in range(1, 41)}


def work(state: comity.sync.Client) -> int:
    """Claim pages and count their words, until none is left. How many this thread had."""
    done = 0
    for page, text in PAGES.items():
        try:
            state.put(f"claims/{page}", state.author, if_version=0)
        except comity.Conflict:
            continue  # another thread has it
        words = len(text.split())
        state.transact(then=[comity.Put(f"words/{page}", words), comity.Increment("words", words)])
        done += 1
    return done


def main() -> None:
    with own_server() as address, comity.sync.connect(address, namespace="pages") as state:
        with ThreadPoolExecutor(THREADS) as pool:
            done = list(pool.map(work, [state.with_options(author=f"thread-{number}") for number in range(THREADS)]))
        words = state.get("words")
        assert words is not None
        claims = state.list("claims/").all()
        print(f"{THREADS} threads did {sum(done)} pages, {len(claims)} of them different: {words.value} words")


if __name__ == "__main__":
    main()
