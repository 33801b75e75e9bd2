"""`djangae.urls`, for `/_ah/`: start, stop, warmup and clearsessions."""

from django.urls import path

from defer_djangae import views

urlpatterns = [
    path("start", views.start, name="instance_start"),
    path("stop", views.stop, name="instance_stop"),
    path("warmup", views.warmup, name="instance_warmup"),
    path("clearsessions", views.clearsessions, name="clearsessions"),
]
