"""URLs of a Djangae site."""

from django.urls import include, path

from museum import views

urlpatterns = [
    path("tasks/", include("djangae.tasks.urls")),
    path("_ah/", include("djangae.urls")),
    path("nightly", views.nightly, name="nightly"),
    path("report", views.report, name="report"),
    path("hook", views.hook, name="hook"),
]
