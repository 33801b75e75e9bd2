"""Django settings of the shop. Its files are under SHOP_DATA, or beside this project."""

import os
from pathlib import Path

DATA = Path(os.environ.get("SHOP_DATA") or Path(__file__).resolve().parent.parent / ".data")
DATA.mkdir(exist_ok=True)

SECRET_KEY = "an-example-that-guards-nothing-" + "shop" * 8
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "defer_django",
    "defer_iteration",
    "orders",
]
MIDDLEWARE = ["shop.attempts.attempts_middleware"]
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA / "shop.sqlite3",
        "CONN_MAX_AGE": None,
        "OPTIONS": {
            "timeout": 30,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode = wal; PRAGMA synchronous = normal;",
        },
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}

# Tasks go to the embedded queue; `defer-local --url http://127.0.0.1:8000 --file .data/queue.sqlite3` delivers them.
DEFER = {"TRANSPORT": "local", "TRANSPORT_OPTIONS": {"file": str(DATA / "queue.sqlite3")}}

# With a Cloud Tasks server that is not Google's (`defer-local --grpc`), they go there by the API. Such a server has no
# token to show, so the handler lets in what comes from this machine and is signed.
CLOUD_TASKS_QUEUES = [{"name": "default", "rate_per_second": 500, "rate_max_concurrent": 10}]
if "CLOUD_TASKS_EMULATOR_HOST" in os.environ:
    DEFER = {"TRANSPORT": "cloud", "AUTHENTICATORS": ["loopback"]}
# Transactions of the Datastore are joined, and its payloads read, where there is an emulator of it.
if "DATASTORE_EMULATOR_HOST" in os.environ:
    DEFER["JOINS"] = ["ndb"]
