"""What a program would use: each module here speaks to one server through a client, in the same few words."""
