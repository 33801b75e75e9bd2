"""The entry point of Google's own, unmodified handler: the function that our bodies name when unpickled."""

from __future__ import annotations

import os
import sys
from typing import Any

from ..delivery import Delivery
from ..errors import PermanentTaskFailure, SingularTaskFailure
from ..wire import frame
from .execute import Outcome, execute


def run_envelope(wire: bytes) -> Any:
    """Run one envelope under Google's `deferred` handler, whose own failures say what to answer. Returns what the
    callable returned. Exceptions propagate."""
    # the SDK's middleware puts the request's headers here, in an environment of one request
    queue, trace = (os.environ.get(f"HTTP_X_{name}", "") for name in ("APPENGINE_QUEUENAME", "CLOUD_TRACE_CONTEXT"))
    return run_body(frame.wrap(wire), Delivery(target="google", queue=queue, trace=trace))


def run_body(body: bytes, delivery: Delivery) -> Any:
    """Run one body of ours as Google's `deferred.run` would: return what the callable returned, or raise the SDK's
    failures."""
    returned: list[Any] = []
    outcome = execute(body, delivery, returned, shown=True)
    if outcome is Outcome.RETRY:
        raise sdk_failure(SingularTaskFailure("defer: retry later"))
    if outcome is Outcome.PERMANENT:
        raise sdk_failure(PermanentTaskFailure("defer: failed for good"))
    return returned[0] if returned else None


def sdk_failure(failure: PermanentTaskFailure | SingularTaskFailure) -> Exception:
    """Return the SDK's failure that means the same; ours if the SDK is not loaded."""
    sdk = sys.modules.get("google.appengine.ext.deferred.deferred")
    name = "PermanentTaskFailure" if isinstance(failure, PermanentTaskFailure) else "SingularTaskFailure"
    made: Exception = getattr(sdk, name, type(failure))(*failure.args)
    return made
