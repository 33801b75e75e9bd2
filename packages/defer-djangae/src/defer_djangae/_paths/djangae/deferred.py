"""`djangae.deferred` is `defer_djangae.deferred`, under its other name."""

import sys

from defer_djangae import deferred

sys.modules[__name__] = deferred
