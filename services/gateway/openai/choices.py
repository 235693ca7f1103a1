"""Several generations of one request: started together, merged into one stream, ended together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from services.gateway.generation import Delta, TextGeneration
from services.gateway.routing.deadline import Deadline
from services.gateway.text_service import TextService, Wish


async def start_all(
    service: TextService, wishes: Sequence[Wish], interface: str, deadline: Deadline
) -> list[TextGeneration]:
    """Starts every generation; when one cannot start, none is left at work.

    Raises:
        TradewindError: the first one's reason.
    """
    tasks = [asyncio.create_task(service.start(wish, interface, deadline)) for wish in wishes]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, TextGeneration):
                result.close()
        raise


async def merged(generations: Sequence[TextGeneration]) -> AsyncGenerator[tuple[int, Delta]]:
    """Each delta with the number of its generation, as they come. Nothing is read ahead of the caller.

    Raises:
        TradewindError: one of them failed; all are ended.
    """
    if len(generations) == 1:
        # The usual case, without a task for each token.
        async with aclosing(aiter(generations[0])) as deltas:
            async for delta in deltas:
                yield 0, delta
        return
    iterators = [aiter(generation) for generation in generations]
    waiting = {asyncio.ensure_future(anext(iterator, None)): i for i, iterator in enumerate(iterators)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=waiting.__getitem__):
                index = waiting.pop(task)
                following = task.result()
                if following is not None:
                    yield index, following
                    waiting[asyncio.ensure_future(anext(iterators[index], None))] = index
    finally:
        for generation in generations:
            generation.close()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
