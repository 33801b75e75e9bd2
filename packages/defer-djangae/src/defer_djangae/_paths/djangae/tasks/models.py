"""`djangae.tasks.models`: the app `djangae.tasks` is `defer_django` here, and its model is too."""

from defer_django.models import DeferredTask

__all__ = ["DeferredTask"]
