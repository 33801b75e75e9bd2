"""The commands: their arguments, and what they do.

`python -m defer_core` has all of them; a framework gives them names among its own (`manage.py defer_sweep`). `say` gets
each line of their output.
"""

from __future__ import annotations

from .dead import add_dead_arguments, run_dead
from .health import add_health_arguments, run_health
from .queues import add_queue_arguments, run_queues
from .status import add_status_arguments, add_watch_argument, run_status
from .sweep import add_sweep_arguments, run_sweep

__all__ = [
    "add_dead_arguments",
    "add_health_arguments",
    "add_queue_arguments",
    "add_status_arguments",
    "add_sweep_arguments",
    "add_watch_argument",
    "run_dead",
    "run_health",
    "run_queues",
    "run_status",
    "run_sweep",
]
