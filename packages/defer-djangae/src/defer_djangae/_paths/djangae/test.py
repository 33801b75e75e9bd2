"""`djangae.test` is `defer_djangae.testing`, under its other name."""

import sys

from defer_djangae import testing

sys.modules[__name__] = testing
