"""Work that ends with the caller: nobody computes for a connection that is gone."""

import asyncio
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, TypeVar

from starlette.requests import Request

from hipray.serving.problems import Problem, ProblemCode, ProblemError

Result = TypeVar("Result")

GONE = Problem(
    HTTPStatus.BAD_REQUEST, "the caller hung up before the answer", {}, ProblemCode.CALLER_GONE
)
"""For the audit line; nobody reads it."""


async def while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of `work`; cancel it, and raise ProblemError, when the caller hangs up.

    The body must have been read: what arrives after it is the end of the connection.
    """
    working, watching = asyncio.create_task(work), asyncio.create_task(_wait_for_end(request))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ProblemError(GONE)
        return working.result()
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _wait_for_end(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
