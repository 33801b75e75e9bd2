"""`djangae.tasks.urls` is `defer_djangae.urls`, under its other name."""

import sys

from defer_djangae import urls

sys.modules[__name__] = urls
