"""The samples of App Engine and of Cloud Run start, and do what they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import services

EXAMPLES = Path(__file__).parents[3] / "examples"

APP_ENGINE = """
import io, json, os, sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[1])
import main
from google.appengine.ext import testbed
bed = testbed.Testbed()
bed.activate()
bed.init_datastore_v3_stub()
bed.init_memcache_stub()
bed.init_taskqueue_stub()
queue = bed.get_stub("taskqueue")

def call(method, path, body=b"", **headers):
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "wsgi.input": io.BytesIO(body),
               "HTTP_X_APPENGINE_USER_IP": "8.8.8.8", "CONTENT_LENGTH": str(len(body)), **headers}
    said = []
    content = b"".join(main.app(environ, lambda status, headers: said.append(status)))
    return said[0][:3], content.decode().strip()

ordered = call("POST", "/order")[0]
[task] = queue.get_filtered_tasks()
outside = call("POST", task.url, task.payload, HTTP_X_APPENGINE_TASKNAME=task.name)[0]
before = call("GET", "/")[1]
ran = call("POST", task.url, task.payload, HTTP_X_APPENGINE_USER_IP="0.1.0.2", HTTP_X_APPENGINE_TASKNAME=task.name)
cron = call("GET", task.url, HTTP_X_APPENGINE_USER_IP="0.1.0.2", HTTP_X_APPENGINE_CRON="true")[0]
print(json.dumps([ordered, outside, before, list(ran), call("GET", "/")[1], cron]))
"""

CLOUD_RUN = """
import io, json, sys
sys.path.insert(0, sys.argv[1])
import main

def call(method, path):
    said = []
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "REMOTE_ADDR": "8.8.8.8", "wsgi.input": io.BytesIO(b"")}
    list(main.app(environ, lambda status, headers: said.append(status)))
    return said[0]

from defer_core.config import current
parent = current().the_transport.target.parent
print(json.dumps([call("GET", "/"), call("POST", "/_ah/queue/deferred"), call("GET", "/_ah/queue/deferred"), parent]))
"""


def run(script: str, folder: Path, **environ: str) -> object:
    command = [sys.executable, "-c", script, str(folder)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("DEFER_", "DJANGO_"))}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env={**clean, **environ}, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_app_engine_sample() -> None:
    services.library("google.appengine.ext.testbed")
    assert run(
        APP_ENGINE,
        EXAMPLES / "appengine",
        GAE_ENV="standard",
        GAE_APPLICATION="testbed-test",
        APPLICATION_ID="testbed-test",
    ) == [
        "200",
        "403",
        "1 orders, 0 shipped",
        ["200", "done"],
        "1 orders, 1 shipped",
        "200",
    ]


def test_the_cloud_run_sample() -> None:
    for name in ("jwt", "cryptography", "google.cloud.tasks_v2", "google.cloud.ndb"):
        services.library(name)
    secrets = {
        "SERVICE_URL": "https://shop.run.app",
        "TASKS_ACCOUNT": "t@p.iam.gserviceaccount.com",
        "DEFER_SECRET": "k" * 32,
    }
    project = {"GOOGLE_CLOUD_PROJECT": "p", "CLOUD_TASKS_LOCATION": "l"}
    answers = ["200 OK", "403 Forbidden", "405 Method Not Allowed", "projects/p/locations/l"]
    assert run(CLOUD_RUN, EXAMPLES / "cloud_run", K_SERVICE="shop", **secrets, **project) == answers
