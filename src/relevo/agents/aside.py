"""Call something that may hang in the kernel, without hanging with it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


async def aside(function: Callable[[], _T]) -> _T:
    """The result of a function that is called in a thread of its own.

    The thread is a daemon: when the caller is cancelled (its time is over), the thread is left to itself and holds up
    neither the event loop nor the end of the program. asyncio's own threads would: they are few, and joined at exit.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, problem = None, None
        try:
            result = function()
        except Exception as error:  # noqa: BLE001 - handed to the caller
            problem = error
        try:
            loop.call_soon_threadsafe(settle, result, problem)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    threading.Thread(target=work, name="aside", daemon=True).start()
    return await future
