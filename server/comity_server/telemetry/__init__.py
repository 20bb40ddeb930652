"""What is seen of a server from outside: counts and metrics, traces, logs."""
