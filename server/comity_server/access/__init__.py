"""Who makes a call, and what that one may do."""
