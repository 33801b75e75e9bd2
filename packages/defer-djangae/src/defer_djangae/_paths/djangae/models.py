"""`djangae.models` is `defer_djangae.markers`, under its other name."""

import sys

from defer_djangae import markers

sys.modules[__name__] = markers
