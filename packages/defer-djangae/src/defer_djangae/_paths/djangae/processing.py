"""`djangae.processing` is `defer_djangae.processing`, under its other name."""

import sys

from defer_djangae import processing

sys.modules[__name__] = processing
