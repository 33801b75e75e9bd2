"""SIGTERM to a real server, while a request runs: it is told, and the server ends."""

from __future__ import annotations

import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import services
from outside.processes import Processes, wait_for
from outside.stopping_sites import STARTED

SITE = "outside.stopping_sites"
HOOK = """
def post_worker_init(worker):
    from defer_core import install_signal_handlers
    install_signal_handlers()
"""
GUNICORN = ["-m", "gunicorn", "--bind=127.0.0.1:{port}", f"{SITE}:application", "--graceful-timeout=60"]
UVICORN = ["-m", "uvicorn", "--host=127.0.0.1", "--port={port}"]
SERVERS = {
    "gunicorn, the call alone": [*GUNICORN, "--worker-class=gthread"],
    "gunicorn with the hook": [*GUNICORN, "--config=hook.py"],
    "gunicorn --preload with the hook": [*GUNICORN, "--config=hook.py", "--preload"],
    "gunicorn gthread --preload with the hook": [*GUNICORN, "--config=hook.py", "--preload", "--worker-class=gthread"],
    "uvicorn": [*UVICORN, f"{SITE}:asgi"],
    "uvicorn without a lifespan": [*UVICORN, "--lifespan=off", f"{SITE}:asgi"],
    "uvicorn with Django": [*UVICORN, f"{SITE}:django_site"],
}


@pytest.mark.parametrize("server", SERVERS)
def test_a_request_is_told_that_the_server_is_to_end(processes: Processes, tmp_path: Path, server: str) -> None:
    (tmp_path / "hook.py").write_text(HOOK)
    port = services.free_port()
    arguments = [part.format(port=port) for part in SERVERS[server]]
    process = processes.serve(port, *arguments, **({"CALL_ALONE": "1"} if "alone" in server else {}))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60).read())
        wait_for((tmp_path / STARTED).exists, "the request", process)
        process.popen.terminate()
        assert answer.result() == b"True", process.output()
    process.ends()
