"""The site as a WSGI application, for any server: `outside.wsgi:application`, started in the site's folder."""

from __future__ import annotations

import sys

from outside.forms import in_forms
from outside.site import KEYS

from defer_core import configure
from defer_gae_handler import make_application

configure(transport="local", keys=KEYS, sweep_interval=0)
application = in_forms(make_application())

if __name__ == "__main__":
    from wsgiref.simple_server import make_server

    with make_server("127.0.0.1", int(sys.argv[1]), application) as server:
        server.serve_forever()
