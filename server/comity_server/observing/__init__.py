"""Who looks at a server, and tells others of it: how it stands, its metrics, and who is sent them."""
