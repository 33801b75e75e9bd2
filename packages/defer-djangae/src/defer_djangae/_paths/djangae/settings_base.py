"""`djangae.settings_base` is `defer_djangae.settings_base`, under its other name."""

import sys

from defer_djangae import settings_base

sys.modules[__name__] = settings_base
