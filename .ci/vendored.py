"""Run a plain WSGI service from a folder that holds defer and nothing else: `python -I -S .ci/vendored.py lib`.

-I and -S leave out the environment, site-packages, `.pth` files and all metadata, as App Engine's vendoring does.
"""

import io
import operator
import os
import sys
from importlib import metadata
from pathlib import Path

lib = str(Path(sys.argv[1]).resolve())
sys.path.insert(0, lib)

import defer_core  # noqa: E402 (the folder comes first)
import defer_gae_handler  # noqa: E402
from defer_core.testing import in_memory  # noqa: E402

with in_memory() as queue:
    defer_core.defer(operator.add, 1, 2)
    body = queue.queued()[0].message.body

os.environ["GAE_ENV"] = "standard"
application = defer_gae_handler.make_application()
environ = {
    "REQUEST_METHOD": "POST",
    "PATH_INFO": "/_ah/queue/deferred",
    "REMOTE_ADDR": "127.0.0.1",
    "HTTP_X_APPENGINE_TASKNAME": "t",
    "CONTENT_LENGTH": str(len(body)),
    "wsgi.input": io.BytesIO(body),
}
said: list[str] = []
list(application(environ, lambda status, headers: said.append(status)))
assert said == ["200 OK"], said
assert not list(metadata.distributions()), "there is metadata"
assert defer_core.__file__.startswith(lib) and defer_gae_handler.__file__.startswith(lib)
assert not {"django", "google", "jwt"} & set(sys.modules), "something else was imported"
print("vendored: a task ran from", len(os.listdir(lib)), "packages")
