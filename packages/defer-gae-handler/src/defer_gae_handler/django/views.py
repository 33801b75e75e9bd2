"""The view. It opts out of ATOMIC_REQUESTS on every database: the protocol has transactions of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from django.conf import settings
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from ..handler import handle
from ..request import EnvironHeaders, Request, body_of, read_whole


@csrf_exempt
def deferred_handler(request: HttpRequest) -> HttpResponse:
    """Run one task. Its exceptions propagate: Django reports them (with `DEBUG`, on the console) and answers 500."""
    answer = handle(
        Request(
            method=request.method or "",
            path=request.path,
            headers=EnvironHeaders(request.META),
            remote_addr=request.META.get("REMOTE_ADDR") or "",
            read=_reader(request),
        ),
        shown=settings.DEBUG,
    )
    response = HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))
    response._has_been_logged = answer.status != 405
    return response


def _reader(request: HttpRequest) -> Callable[[int], bytes]:
    """Return `read` for the body. Under WSGI Django does not read a body in chunks: it relies on the length."""
    of_django = partial(read_whole, request.read)
    if "wsgi.input" not in request.META or request.META.get("CONTENT_LENGTH"):
        return of_django
    of_the_server = body_of(request.META)
    return lambda size: of_django(size) or of_the_server(size)


# without `using` the decorator covers the default database alone
for _alias in connections:
    deferred_handler = transaction.non_atomic_requests(using=_alias)(deferred_handler)
# for Django's LoginRequiredMiddleware (5.1): queues do not log in
deferred_handler.login_required = False
