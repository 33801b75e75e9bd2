"""One line of the server's log for the beginning of an attempt to run a task, and one for its end."""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

log = logging.getLogger("shop.attempts")


def attempts_middleware(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Log the task, the attempt, and the status of its answer."""

    def answer(request: HttpRequest) -> HttpResponse:
        headers = request.headers
        name = headers.get("X-AppEngine-TaskName") or headers.get("X-CloudTasks-TaskName")
        if name is None:
            return get_response(request)
        number = headers.get("X-AppEngine-TaskRetryCount") or headers.get("X-CloudTasks-TaskRetryCount")
        log.info("task %s retry %s begins", name, number)
        response = get_response(request)
        log.info("task %s retry %s answers %d", name, number, response.status_code)
        return response

    return answer
