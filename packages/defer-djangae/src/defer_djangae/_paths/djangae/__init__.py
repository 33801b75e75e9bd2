"""The names of Djangae, given back by defer-djangae. A real Djangae on the path comes before this one."""

from defer_djangae import __version__ as __version__

VERSION = __version__
