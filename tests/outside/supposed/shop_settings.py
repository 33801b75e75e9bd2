"""The shop's settings, with our apps."""

from outside.supposed.settings import *  # noqa: F403
from outside.supposed.settings import INSTALLED_APPS, OURS

INSTALLED_APPS = [*INSTALLED_APPS, *OURS]
