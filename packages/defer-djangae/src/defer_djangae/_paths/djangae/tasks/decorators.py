"""`djangae.tasks.decorators` is `defer_djangae.decorators`, under its other name."""

import sys

from defer_djangae import decorators

sys.modules[__name__] = decorators
