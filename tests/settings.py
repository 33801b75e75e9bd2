"""Django settings of the tests; `DEFER_TEST_DATABASE` chooses the database: sqlite (default), postgres or gcloudc."""

import os

SECRET_KEY = "tests-only-" + "k" * 60
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "defer_django",
    "defer_iteration",
    "testapp",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
    "other": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
}
DATABASE = os.environ.get("DEFER_TEST_DATABASE", "sqlite")
if DATABASE == "postgres":
    from services import postgres_settings

    DATABASES = {alias: postgres_settings(alias) for alias in DATABASES}
MIGRATION_MODULES = {"testapp": None}
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "testapp.urls"
STATIC_URL = "/static/"
DEFER = {"TRANSPORT": "memory", "SWEEP_INTERVAL": 0}
