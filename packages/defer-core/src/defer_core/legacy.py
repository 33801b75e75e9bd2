"""Bodies that older libraries have queued: pickled triples of a callable, its args and its kwargs."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from .errors import CallableNotFoundError, DecodeError


def load(body: bytes) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """The call in a legacy body. Raises CallableNotFoundError or DecodeError."""
    try:
        func, args, kwargs = pickle.loads(body)
    except (ImportError, AttributeError) as error:
        raise CallableNotFoundError(f"The legacy task names something that is not here: {error}") from error
    except Exception as error:
        raise DecodeError(f"The legacy task cannot be unpickled: {error!r}") from error
    return func, tuple(args), dict(kwargs)
