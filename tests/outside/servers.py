"""The servers that people run in development, each as its documentation starts it."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

WSGI = "outside.wsgi:application"
UWSGI = (
    str(Path(sys.prefix) / "bin" / "uwsgi"), "--home", sys.prefix, "--http-socket", "127.0.0.1:{port}", "--need-app",
    "--module", WSGI, "--enable-threads", "--threads", "4", "--die-on-term",
)  # fmt: skip
DJANGO_WSGI = ("--env", "DJANGO_SETTINGS_MODULE=outside.django_site", "django.core.wsgi:get_wsgi_application()")
DJANGO = ("-m", "django", "runserver", "--settings", "outside.django_site", "--noreload", "{port}")


@dataclass(frozen=True, kw_only=True)
class Server:
    """How to start one server."""

    command: tuple[str, ...]
    """Its arguments, with `{port}`: those of Python where they begin with -m."""
    reads_chunks: bool = True
    """Whether it gives an application the body of a request that came in chunks."""


SERVERS = {
    "gunicorn": Server(command=("-m", "gunicorn", "-b", "127.0.0.1:{port}", WSGI)),
    "gunicorn-gthread": Server(command=("-m", "gunicorn", "-b", "127.0.0.1:{port}", "--threads", "4", WSGI)),
    "gunicorn-django": Server(command=("-m", "gunicorn", "-b", "127.0.0.1:{port}", *DJANGO_WSGI)),
    "waitress": Server(command=("-m", "waitress", "--listen=127.0.0.1:{port}", WSGI)),
    "wsgiref": Server(command=("-m", "outside.wsgi", "{port}"), reads_chunks=False),
    "flask": Server(command=("-m", "flask", "--app", "outside.flask_site", "run", "-p", "{port}")),
    "runserver": Server(command=DJANGO, reads_chunks=False),
    "runserver-nothreading": Server(command=(*DJANGO, "--nothreading"), reads_chunks=False),
    "uvicorn-django": Server(command=("-m", "uvicorn", "outside.django_asgi:application", "--port", "{port}")),
    "uvicorn-a2wsgi": Server(command=("-m", "uvicorn", "outside.asgi:application", "--port", "{port}")),
}
if importlib.util.find_spec("pyuwsgi"):  # which not every machine can install
    SERVERS["uwsgi"] = Server(command=UWSGI, reads_chunks=False)
else:
    print("Left out: uWSGI, which is not installed here (pip install pyuwsgi).")
