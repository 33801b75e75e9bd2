"""Django settings of the tests; `DEFER_TEST_DATABASE` chooses the database: sqlite (default), postgres or gcloudc.

PostgreSQL is reached by psycopg 3, which binds parameters itself; `DEFER_TEST_BINDING=server` lets the server do that,
and `DEFER_TEST_DRIVER=psycopg2` takes psycopg 2.
"""

import os
import tempfile

SECRET_KEY = "tests-only-" + "k" * 60
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "defer_django",
    "defer_iteration",
    "testapp",
]
MIDDLEWARE = [
    "content_policy.strict",
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


def sqlite_settings(alias: str) -> dict[str, object]:
    """A file, because threads that share a database in memory are refused each other's locks instead of waiting."""
    name = f"{tempfile.gettempdir()}/defer-tests-{os.getpid()}-{alias}"
    options = {"timeout": 30, "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF"}
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": f"{name}.sqlite3",
        "TEST": {"NAME": f"{name}.test"},
        "OPTIONS": options,
    }


DATABASES = {alias: sqlite_settings(alias) for alias in ("default", "other")}
DATABASE = os.environ.get("DEFER_TEST_DATABASE", "sqlite")
if DATABASE == "postgres":
    from services import postgres_settings

    DATABASES = {alias: postgres_settings(alias) for alias in DATABASES}
if DATABASE == "gcloudc":  # two namespaces of Google's Firestore emulator in Datastore mode
    from services import PROJECT, firestore_emulator

    os.environ["DATASTORE_EMULATOR_HOST"], os.environ["DATASTORE_PROJECT_ID"] = firestore_emulator(), PROJECT
    DATABASES = {
        alias: {
            "ENGINE": "firestore_engine",
            "PROJECT": PROJECT,
            "NAMESPACE": f"{alias}-{os.getpid()}",
            "INDEXES_FILE": f"{tempfile.gettempdir()}/defer-tests-{os.getpid()}-indexes.yaml",
            "OPTIONS": {"count_mode": "emulated"},
        }
        for alias in DATABASES
    }
    DATABASE_ROUTERS = ["firestore_engine.base.Router"]
MIGRATION_MODULES = dict.fromkeys(["admin", "auth", "contenttypes", "sessions", "testapp"])  # only ours are migrated
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "testapp.urls"
STATIC_URL = "/static/"
DEFER = {"TRANSPORT": "memory", "SWEEP_INTERVAL": 0}
