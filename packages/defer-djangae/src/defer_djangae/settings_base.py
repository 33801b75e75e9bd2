"""`djangae.settings_base`: the beginning of a Djangae site's settings (`from djangae.settings_base import *`).

The names and values of Djangae 2, without what needs `djangae.contrib` and Google's logging library.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from django.utils.log import DEFAULT_LOGGING

from .environment import is_production_environment
from .task_environment import tasks_location

FILE_CACHE_LOCATION = "/tmp/cache" if is_production_environment() else ".cache"
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
        "LOCATION": FILE_CACHE_LOCATION,
    }
}
LOGGING: dict[str, Any] = deepcopy(DEFAULT_LOGGING)
LOGGING["loggers"]["djangae"] = {"level": "INFO"}
LOGGING["loggers"]["defer"] = {"level": "INFO"}
ALLOWED_HOSTS = ("*",)  # App Engine routes by domain
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"  # Datastore's ids have 64 bits
CLOUD_TASKS_LOCATION = tasks_location()
NUM_PROXIES = 1  # addresses at the end of X-Forwarded-For that Google's own proxies add
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
