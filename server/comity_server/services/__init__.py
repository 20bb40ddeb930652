"""The gRPC side: from messages to the words of `comity_server.model`, and back."""
