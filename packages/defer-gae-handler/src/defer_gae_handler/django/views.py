"""The view: the protocol's transactions are its own, so it is outside of ATOMIC_REQUESTS on every database."""

from __future__ import annotations

from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from ..handler import handle
from ..request import EnvironHeaders, Request


@csrf_exempt
def deferred_handler(request: HttpRequest) -> HttpResponse:
    """Run one task. What it raises propagates: Django reports it and answers 500."""
    answer = handle(
        Request(
            method=request.method or "",
            path=request.path,
            headers=EnvironHeaders(request.META),
            remote_addr=request.META.get("REMOTE_ADDR") or "",
            read=request.read,
        )
    )
    return HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))


# Django's bare decorator frees the default database alone
for _alias in connections:
    deferred_handler = transaction.non_atomic_requests(using=_alias)(deferred_handler)
# for Django's LoginRequiredMiddleware (5.1): queues have their doors
deferred_handler.login_required = False
