"""Settings of a Djangae site, as Djangae's documentation has them; only the database is chosen from outside."""

import os

from djangae.environment import is_development_environment
from djangae.settings_base import *  # noqa: F403
from djangae.settings_base import MIDDLEWARE

SECRET_KEY = "museum-" + "k" * 60
DEBUG = is_development_environment()
BASE_DIR = os.path.dirname(os.path.abspath(__file__))
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "djangae",
    "djangae.tasks",
    "museum",
]
MIDDLEWARE = ["djangae.tasks.middleware.task_environment_middleware", *MIDDLEWARE]
ROOT_URLCONF = "site_urls"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
            ]
        },
    }
]
USE_TZ = True
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.path.join(BASE_DIR, "museum.sqlite3")}}
if os.environ.get("MUSEUM_DATABASE"):
    import json

    DATABASES = json.loads(os.environ["MUSEUM_DATABASE"])

CLOUD_TASKS_PROJECT_ID = "museum"
CLOUD_TASKS_LOCATION = "europe-west1"
CLOUD_TASKS_QUEUES = [
    {"name": "default", "rate_per_second": 50, "rate_max_concurrent": 10, "retry_max_attempts": 20},
    {"name": "slow"},
]
TEST_RUNNER = "djangae.test.AppEngineDiscoverRunner"
