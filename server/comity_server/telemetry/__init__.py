"""What a server notes while it works: counts, the trails of calls, spans, log lines. Every part writes to these, so
that they know none of them; what looks at all parts is `comity_server.observing`."""
