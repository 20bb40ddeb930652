"""The store that many servers share: Redis keeps and orders what happens, each server follows it in memory.

A group is judged on the server's own replica and appended to the namespace's log by one script call, which succeeds
only if nothing was appended since. Whoever was slower gets to see what came before it, and judges anew. So the rules
about data are those of the store in memory, to the letter, and Redis does the least that can be done.
"""
