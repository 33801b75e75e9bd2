"""`djangae.tasks.handlers` is `defer_djangae.handlers`, under its other name."""

import sys

from defer_djangae import handlers

sys.modules[__name__] = handlers
