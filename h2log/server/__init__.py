"""Sockets to handlers: the listener, TLS, and a leg for each HTTP version."""
