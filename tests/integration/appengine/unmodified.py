"""Google's own deferred handler, unmodified, behind its middleware, runs what we deferred. Prints what it answered."""

from __future__ import annotations

import io
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")
sys.path.insert(0, str(Path(__file__).parents[2]))
os.environ["SERVER_SOFTWARE"] = "gunicorn"

from google.appengine.api import wrap_wsgi_app  # noqa: E402
from google.appengine.ext import testbed  # noqa: E402

application = wrap_wsgi_app(lambda environ, start: [b"the site"], use_deferred=True)
bed = testbed.Testbed()
bed.activate()
bed.init_datastore_v3_stub()
bed.init_memcache_stub()
bed.init_taskqueue_stub()

from integration.appengine import deferrable  # noqa: E402
from integration.appengine.differences import noise  # noqa: E402

import defer_core  # noqa: E402
from defer_core.record import State  # noqa: E402

config = defer_core.configure(transport="appengine", sweep_interval=0.0)
queue = bed.get_stub("taskqueue")


def answer(func: Any, *args: Any, address: str = "0.1.0.2") -> Any:
    """Status and content for a task of ours, or the name of the exception."""
    defer_core.defer(func, *args)
    [task] = queue.get_filtered_tasks()
    queue.DeleteTask("default", task.name)
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": task.url,
        "SERVER_SOFTWARE": "gunicorn",
        "CONTENT_LENGTH": str(len(task.payload)),
        "HTTP_X_APPENGINE_USER_IP": address,
        "HTTP_X_APPENGINE_TASKNAME": task.name,
        "wsgi.input": io.BytesIO(task.payload),
    }
    said: list[str] = []
    try:
        content = b"".join(application(environ, lambda status, headers: said.append(status)))
    except Exception as error:
        return type(error).__name__
    return said[0], content.decode()


result = {
    "small": answer(deferrable.note, "small"),
    "large": answer(deferrable.note, noise(300_000)),
    "singular": answer(deferrable.fail_once),
    "permanent": answer(deferrable.fail_for_good),
    "crash": answer(deferrable.crash),
    "from outside": answer(deferrable.note, "outside", address="8.8.8.8"),
    "ran": [[len(args[0]) if len(args[0]) > 100 else args[0]] for args, _ in deferrable.calls],
    "dead": [record.reason for record in config.the_store.list(State.DEAD)] if config.the_store else [],
}
print(json.dumps(result))
