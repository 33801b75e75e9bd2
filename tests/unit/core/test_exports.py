"""The public names of defer_core."""

from __future__ import annotations

import defer_core

NAMES = """
BulkSendError Call CallableError CallableForbiddenError Config ConfigError DeferError Delivery NotInTransactionError
OptionError Outcome PayloadTooLargeError PermanentTaskFailure RetryOptions Routing SingularTaskFailure Status Task
TaskAlreadyExistsError TaskHandle TaskOptions TaskTooLargeError TransportError UnserializableError
__version__ adefer configure current_delivery defer defer_many enqueue execute
install_signal_handlers is_stopping register_type run_envelope
""".split()


def test_the_exports_are_these() -> None:
    assert sorted(defer_core.__all__) == sorted(NAMES)
    assert all(hasattr(defer_core, name) for name in NAMES)
