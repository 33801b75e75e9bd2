"""`djangae.tasks.environment` is `defer_djangae.task_environment`, under its other name."""

import sys

from defer_djangae import task_environment

sys.modules[__name__] = task_environment
