"""Django settings of the tests; `DEFER_TEST_DATABASE` chooses the database."""

import os

SECRET_KEY = "tests-only-" + "k" * 60
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "defer_django",
    "defer_iteration",
    "testapp",
]
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
    "other": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
}
if os.environ.get("DEFER_TEST_DATABASE") == "postgres":
    from services import postgres_settings

    DATABASES = {alias: postgres_settings(alias) for alias in DATABASES}
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "testapp.urls"
DEFER = {"TRANSPORT": "memory", "SWEEP_INTERVAL": 0}
