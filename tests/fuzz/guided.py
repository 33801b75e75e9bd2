"""The same as `fuzz.py`, guided by coverage, where atheris is installed:
`MSGPACK_PUREPYTHON=1 python tests/fuzz/guided.py -max_total_time=600 FOLDER` (msgpack in Python can be guided, too).

An input is a form and some bytes: a whole body, the envelope of one, the inside of one, or one payload.
"""

from __future__ import annotations

import logging
import struct
import sys
from pathlib import Path

import atheris

sys.path[0] = str(Path(__file__).resolve().parents[1])

with atheris.instrument_imports(include=["defer_core", "defer_gae_handler", "msgpack"]):
    from fuzz.fuzz import SETTINGS, AcceptAll, corpus, tried

    from defer_core import clock
    from defer_core.testing import MemoryStore, in_memory
    from defer_core.wire import frame
    from defer_core.wire.envelope import MAGIC, VERSION
    from defer_gae_handler import Request

TRUSTING = SETTINGS[3]
"""Without keys, so that whatever comes is decoded, and pickles of older libraries too."""


def body_of(data: bytes) -> bytes:
    """A body from an input."""
    form, rest = data[0] & 7, data[1:]
    if form == 0:
        return rest
    if form == 1:
        return frame.wrap(rest)
    header = struct.pack(">BBBQ", MAGIC, VERSION, (0, 2, 4)[form % 3], 1_799_999_999_000)
    if form < 5:
        return frame.wrap(header + rest)
    length = struct.pack(">I", len(rest))
    return frame.wrap(header[:2] + b"\x00" + header[3:] + b"\x94\xc0\xc0\xc0\xc6" + length + rest)


def test_one_input(data: bytes) -> None:
    """Raises where the outcome is not one of the defined ones."""
    if not data:
        return
    body = body_of(data)
    request = Request(method="POST", path="/", headers={}, read=lambda size: body[:size])
    with (
        in_memory(store=MemoryStore(), authenticators=[AcceptAll()], grace=0.0, **TRUSTING),
        clock.replaced(lambda: 1.8e9),
    ):
        tried(request, body)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    for folder in sys.argv[1:]:
        if not folder.startswith("-"):
            for number, seed in enumerate(corpus()):
                Path(folder, f"seed-{number}").write_bytes(b"\0" + seed)
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
