"""The shop serves its task handler, and a page that says that it is there."""

from django.http import HttpRequest, HttpResponse
from django.urls import include, path


def index(request: HttpRequest) -> HttpResponse:
    """Is anybody there?"""
    return HttpResponse("The shop is open.\n", content_type="text/plain")


urlpatterns = [
    path("", index),
    path("_ah/queue/", include("defer_gae_handler.django.urls")),
]
