"""`djangae.tasks.middleware`: keep the task headers of each request while it is served."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.utils.decorators import sync_and_async_middleware

from .task_environment import of_request


@sync_and_async_middleware
def task_environment_middleware(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Make `djangae.tasks.environment` answer for the request that is being served."""

    async def noting_async(request: Any) -> Any:
        with of_request(request.META):
            return await get_response(request)

    def noting(request: Any) -> Any:
        with of_request(request.META):
            return get_response(request)

    return noting_async if iscoroutinefunction(get_response) else noting


TaskEnvironmentMiddleware = task_environment_middleware
