"""The end of the control socket."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from h2log.errors import UsageError
from h2log.workers.control import Control, ask


async def test_who_waits_for_an_answer_is_told_of_the_end(tmp_path: Path) -> None:
    """Who has asked, and who has connected and asks nothing; nothing of it is logged."""
    asked = asyncio.Event()

    async def answer(question: dict[str, Any]) -> dict[str, Any]:
        asked.set()
        await asyncio.Event().wait()
        return question

    path = str(tmp_path / "control.sock")
    control = Control(path, answer)
    await control.open()
    reader, writer = await asyncio.open_unix_connection(path)
    question = asyncio.create_task(asyncio.to_thread(ask, path, {"do": "reload"}, 10.0))
    await asked.wait()
    trouble: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: trouble.append(context))
    await control.end()
    with pytest.raises(UsageError, match="the server stops"):
        await question
    assert await reader.read() == b'{"error": "the server stops"}\n'
    writer.close()
    assert not trouble
