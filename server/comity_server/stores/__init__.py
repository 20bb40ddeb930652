"""Where state is kept: one protocol, several stores behind it."""
