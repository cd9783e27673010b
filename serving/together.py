"""A few tasks that live and end together. Knows nothing of what they do."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def beside(main: Coroutine[Any, Any, T], *helpers: Coroutine[Any, Any, None]) -> T:
    """What `main` returns. Helpers run at the same time, until it ends; when one of them fails, that is raised.

    None of them runs any more when this returns, or raises, or is cancelled.
    """
    first = asyncio.ensure_future(main)
    others = [asyncio.ensure_future(helper) for helper in helpers]
    running: set[asyncio.Future[Any]] = {first, *others}
    try:
        while True:
            ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            if first.done():
                return first.result()
            for helper in ended:
                helper.result()
    finally:
        for task in (first, *others):
            task.cancel()
        await asyncio.gather(first, *others, return_exceptions=True)
