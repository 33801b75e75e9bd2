"""The Django project as an ASGI application: `outside.django_asgi:application`."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

os.environ["DJANGO_SETTINGS_MODULE"] = "outside.django_site"
application = get_asgi_application()
