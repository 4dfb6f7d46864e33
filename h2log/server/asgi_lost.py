"""What `send` raises when the client is gone, and what applications make of that."""

from __future__ import annotations

__all__ = ["ClientGoneError", "only_lost"]


class ClientGoneError(ConnectionAbortedError):
    """There is nobody any more who could be sent something: an OSError, as ASGI wants it."""


def only_lost(error: BaseException) -> bool:
    """Say whether `error` is nothing but what `send` raises when the client is gone.

    Task groups wrap what their tasks raise; frameworks have an exception of their own for it, or
    raise another ConnectionError in its place. An OSError of any other origin, a database's or a
    file's, is the application's.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(only_lost(part) for part in error.exceptions)
    return (
        isinstance(error, ClientGoneError)
        or type(error).__name__ == "ClientDisconnect"
        or isinstance(error.__cause__, ClientGoneError)
        or (isinstance(error, ConnectionError) and isinstance(error.__context__, ClientGoneError))
    )
