"""One row of the tables: a server, and a dispatcher where one is wanted, in a folder of their own."""

from __future__ import annotations

import itertools
import re
from functools import cached_property
from pathlib import Path

import pytest
import services
from outside.processes import Process, Processes
from outside.servers import SERVERS

ROWS = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in SERVERS]
"""For `pytest.mark.parametrize("row", ROWS, indirect=True, scope="module")`."""


class Row:
    """A server that serves the site."""

    def __init__(self, name: str, processes: Processes) -> None:
        self.server = SERVERS[name]
        self.port = services.free_port()
        self.numbers = itertools.count()
        self._processes = processes
        self.process = processes.serve(self.port, *(part.format(port=self.port) for part in self.server.command))

    @property
    def folder(self) -> Path:
        """Where the site lies."""
        return self._processes.folder

    @cached_property
    def dispatcher(self) -> Process:
        """The dispatcher, which is started when it is first asked for."""
        return self._processes.python("-m", "defer_local", "--url", f"http://127.0.0.1:{self.port}")

    def told(self) -> list[str]:
        """What the dispatcher has said of attempts, and of anything that is wrong."""
        lines = self.dispatcher.output().splitlines()
        return [line for line in lines if re.search(r" attempt \d+: |WARNING|ERROR|CRITICAL|Traceback", line)]
