"""A sans-IO HTTP/2 engine (RFC 9113, RFC 7541): bytes and the time in, events and bytes out."""
