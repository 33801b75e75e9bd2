"""`djangae.views` is `defer_djangae.views`, under its other name."""

import sys

from defer_djangae import views

sys.modules[__name__] = views
