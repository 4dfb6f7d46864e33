"""What is opened at its first use, and has to be closed when the loop that it belongs to ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable

__all__ = ["until_loop_ends"]


async def until_loop_ends(close: Callable[[], Awaitable[None]]) -> AsyncGenerator[None, None]:
    """Have `close` awaited when the running loop is shut down; return what `aclose()` ends sooner.

    `asyncio.run` and `asyncio.Runner` close the asynchronous generators that wait in their loop,
    after its tasks and before the loop itself (`loop.shutdown_asyncgens`): this is one. `close`
    is awaited once, whatever comes first.
    """

    async def waiting() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await close()

    generator = waiting()
    await anext(generator)
    return generator
