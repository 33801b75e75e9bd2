"""Our ASGI application under uvicorn, with the embedded queue in front of it."""

from __future__ import annotations

from pathlib import Path

import services
from outside.processes import Processes, wait_for
from outside.site import ran, sending

from defer_core import defer

TASKS = 5


def test_coroutines_run_beside_each_other_on_the_server_s_loop(processes: Processes, tmp_path: Path) -> None:
    from outside import own_asgi

    port = services.free_port()
    processes.serve(port, "-m", "uvicorn", f"--port={port}", "outside.own_asgi:application")
    dispatcher = processes.python("-m", "defer_local", "--url", f"http://127.0.0.1:{port}")
    with sending(tmp_path) as transport:
        for number in range(TASKS):
            defer(own_asgi.meet, number, TASKS, _small_task=True)
        wait_for(lambda: transport.queue.tasks() == [], "every task", dispatcher)
    assert sorted(ran(tmp_path)) == list(range(TASKS))


def test_a_coroutine_under_uvicorn_hears_that_the_server_is_to_end(processes: Processes, tmp_path: Path) -> None:
    from outside import own_asgi

    port = services.free_port()
    server = processes.serve(port, "-m", "uvicorn", f"--port={port}", "outside.own_asgi:application")
    processes.python("-m", "defer_local", "--url", f"http://127.0.0.1:{port}")
    with sending(tmp_path):
        defer(own_asgi.until_stopped, _small_task=True)
        wait_for(lambda: (tmp_path / "runs").exists(), "the task", server)
        server.popen.terminate()
        server.ends()
    assert ran(tmp_path) == [1]
