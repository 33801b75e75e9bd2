"""Settings of the shop; what a document prints is added to them."""

import os

SECRET_KEY = "a-key-of-the-tests-" + "k" * 40
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "outside.supposed"]
OURS = ["defer_django", "defer_iteration"]
ROOT_URLCONF = "outside.supposed.settings"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "shop.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
DEFER = {"TRANSPORT": os.environ.get("DEFER_TRANSPORT", "memory"), "KEYS": ["a secret of the tests"]}
BASE_DIR = os.getcwd()
urlpatterns: list[object] = []
