"""The site as an ASGI application, by way of a2wsgi: `outside.asgi:application`."""

from __future__ import annotations

from a2wsgi import WSGIMiddleware
from outside import wsgi

application = WSGIMiddleware(wsgi.application)
