"""The view for uptime checks. It opens no transaction, for its answer is to be there when the database is not."""

from __future__ import annotations

from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

import defer_core


@never_cache
@require_safe
def health(request: HttpRequest) -> HttpResponse:
    """Answer 200 if the service is healthy, else 503; the body is an object of JSON with `healthy` and `reasons`."""
    found = defer_core.health()
    response = HttpResponse(found.to_json(), status=found.status, content_type="application/json")
    response._has_been_logged = True  # else each check of a sick site mails its admins
    return response


for _alias in connections:  # without `using` the decorator covers the default database alone
    health = transaction.non_atomic_requests(using=_alias)(health)
health.login_required = False  # for Django's LoginRequiredMiddleware: uptime checks do not log in
