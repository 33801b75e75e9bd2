"""`djangae.models`: the table in which Djangae counted shards.

The models of the app "djangae" are those of defer_iteration.
"""

from defer_djangae.markers import DeferIterationMarker

__all__ = ["DeferIterationMarker"]
