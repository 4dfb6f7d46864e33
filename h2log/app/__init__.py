"""What answers a request: routes, messages and static files."""
