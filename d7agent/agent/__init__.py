"""The resident process: holds tokens, answers the socket, starts helpers. Never touches a secret or the network."""
