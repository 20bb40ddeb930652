"""Who may do what: every call passes the gate, and every check of a request asks for its caller's rights."""
