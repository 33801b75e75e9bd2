"""`djangae.environment` is `defer_djangae.environment`, under its other name."""

import sys

from defer_djangae import environment

sys.modules[__name__] = environment
