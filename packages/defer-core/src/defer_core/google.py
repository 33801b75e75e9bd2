"""What Google's own, unmodified handler calls when it unpickles one of our bodies."""

from __future__ import annotations

import sys

from . import frame
from .delivery import Delivery
from .errors import PermanentTaskFailure, SingularTaskFailure
from .execute import Outcome, execute


def run_envelope(wire: bytes) -> None:
    """Run one envelope under Google's `deferred` handler, whose own failures say what to answer.
    Exceptions propagate."""
    outcome = execute(frame.wrap(wire), Delivery(target="google"))
    sdk = sys.modules.get("google.appengine.ext.deferred.deferred")
    if outcome is Outcome.RETRY:
        raise getattr(sdk, "SingularTaskFailure", SingularTaskFailure)("defer: to be tried again")
    if outcome is Outcome.PERMANENT:
        raise getattr(sdk, "PermanentTaskFailure", PermanentTaskFailure)("defer: failed for good")
