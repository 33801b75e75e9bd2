"""`djangae.tasks.middleware` is `defer_djangae.middleware`, under its other name."""

import sys

from defer_djangae import middleware

sys.modules[__name__] = middleware
