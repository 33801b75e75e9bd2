"""`djangae.sandbox` is `defer_djangae.sandbox`, under its other name."""

import sys

from defer_djangae import sandbox

sys.modules[__name__] = sandbox
