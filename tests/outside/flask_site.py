"""The site under Flask: `flask --app outside.flask_site run`."""

from __future__ import annotations

from flask import Flask
from outside.forms import in_forms
from outside.site import KEYS

from defer_core import configure
from defer_gae_handler import wrap_wsgi_app

configure(transport="local", keys=KEYS, sweep_interval=0)
app = Flask(__name__)
app.wsgi_app = in_forms(wrap_wsgi_app(app.wsgi_app))  # type: ignore[method-assign]
