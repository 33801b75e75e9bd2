"""`djangae.test` is `defer_djangae.test_cases`, under its other name."""

import sys

from defer_djangae import test_cases

sys.modules[__name__] = test_cases
