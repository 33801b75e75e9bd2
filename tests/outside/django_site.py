"""The site as a Django project: its settings and its URLs."""

from __future__ import annotations

from django.urls import include, path
from outside.site import KEYS

SECRET_KEY = "outside-" + "k" * 50
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["django.contrib.contenttypes", "defer_django"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "site.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
MIDDLEWARE = ["outside.forms.django_forms"]
ROOT_URLCONF = "outside.django_site"
USE_TZ = True
DEFER = {"TRANSPORT": "local", "STORE": "sqlite", "KEYS": KEYS, "SWEEP_INTERVAL": 0}

urlpatterns = [path("_ah/queue/", include("defer_gae_handler.django.urls"))]
