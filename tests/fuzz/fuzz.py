"""Hostile bodies, headers and environs against the real handler: `python tests/fuzz/fuzz.py --inputs 1000000`.

Bodies of the corpus (golden ones, and those that once mattered) are cut, spliced, flipped and lied about. Whatever
comes, the outcome is one of the defined ones, nothing is imported that a body names, and memory stays bounded.
"""

from __future__ import annotations

import argparse
import logging
import random
import resource
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
# in place of this folder, where `fuzz` would be this file
sys.path[:] = [str(TESTS), *(each for each in sys.path if Path(each).resolve() != TESTS / "fuzz")]

import zoneinfo  # noqa: E402, F401 (imports much by itself, which is not to be held against a body)

from compat import wire_calls  # noqa: E402 (the path comes first)
from fuzz.shapes import SHAPES  # noqa: E402

from defer_core import clock, config  # noqa: E402
from defer_core.testing import MemoryStore, in_memory  # noqa: E402
from defer_core.wire import envelope, frame  # noqa: E402 (the path comes first)
from defer_gae_handler import Authenticator, Request, handle  # noqa: E402

CORPUS = [TESTS / "compat" / "golden" / "wire_v1", TESTS / "fuzz" / "corpus"]
SETTINGS: list[dict[str, Any]] = [
    {"keys": ["golden secret"]},
    {"allow_pickle": False, "callables": ["compat.wire_calls.note"]},
    {"keys": ["golden secret"], "accept_legacy_pickles": False, "inline_limit": 1024, "bind_queue": True},
    {"allow_pickle": False, "callables": ("compat.wire_calls.note",), "accept_legacy_pickles": True},
]
"""With keys, and without (the authenticator proves the sender alone): then the allow-list holds what passes."""
STATUSES = {200, 400, 403, 405, 408, 413}
MOST_MEMORY = 400 * 1024 * 1024
"""Bytes that a run may add to what its process has come to before."""
TOLD = ("TaskName", "QueueName", "TaskRetryCount", "TaskExecutionCount", "TaskETA", "TaskPreviousResponse")


class AcceptAll(Authenticator):
    """Lets everybody in."""

    name = "open"
    target = "appengine"

    def accepts(self, request: Request) -> bool:
        return True


def corpus() -> list[bytes]:
    """The bodies to begin with."""
    return [file.read_bytes() for folder in CORPUS for file in sorted(folder.glob("*.bin"))] + SHAPES


def mutated(draw: random.Random, bodies: list[bytes]) -> bytes:
    """A body that is no longer what it was."""
    body = bytearray(draw.choice(bodies))
    for _ in range(draw.choice([0, 1, 1, 2, 4, 8])):
        at = draw.randrange(len(body) + 1)
        how = draw.randrange(7)
        if how == 0 and body:
            body[at % len(body)] = draw.randrange(256)
        elif how == 1:
            del body[at : at + draw.randrange(1, 20)]
        elif how == 2:
            body[at:at] = draw.randbytes(draw.randrange(1, 20))
        elif how == 3:
            other = draw.choice(bodies)
            body[at:] = other[draw.randrange(len(other) + 1) :]
        elif how == 4 and body:
            body[at % len(body)] ^= 1 << draw.randrange(8)
        elif how == 5:
            body[at:at] = draw.choice(
                [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x01", b"\x91" * 300]
            )
        elif how == 6:
            body[at:at] = draw.choice([b"cos\nsystem\n", b"\xc7\x05\x10cos\ns", b"\xa9os:system", b"\xd4\x0e\xc0"])
    return reframed(draw, bytes(body))


def reframed(draw: random.Random, body: bytes) -> bytes:
    """Half of the time the frame's length is made right again, so that what is inside is reached."""
    start = len(frame.PREFIX) + 4
    if draw.random() < 0.5 and body.startswith(frame.PREFIX) and len(body) > start + len(frame.SUFFIX):
        return frame.wrap(body[start : -len(frame.SUFFIX)])
    return body


def headers(draw: random.Random, body: bytes) -> dict[str, str]:
    """Headers that say anything."""
    values = ["0", "1", "-1", "9" * 30, "nan", "inf", "1e400", "", "é", "\x00", "1800000000.5", "a/b/c"]
    told = {f"X-AppEngine-{name}": draw.choice(values) for name in TOLD if draw.random() < 0.7}
    if draw.random() < 0.8:
        told["Content-Length"] = draw.choice([str(len(body)), str(len(body)), str(len(body) + 1), "x", "-5", "9" * 25])
    return told


def fuzz(seed: int, inputs: int) -> Counter[str]:
    """Try some inputs. Raises AssertionError, or whatever escaped, with the body in a note."""
    logging.disable(logging.CRITICAL)
    peak_before = peak()
    draw, bodies, counts = random.Random(seed), corpus(), Counter[str]()
    for number in range(inputs):
        settings = SETTINGS[number % len(SETTINGS)]
        body = mutated(draw, bodies)
        request = Request(
            method="POST", path="/", headers=headers(draw, body), read=lambda size, body=body: body[:size]
        )
        before = set(sys.modules)
        with (
            in_memory(store=MemoryStore(), authenticators=[AcceptAll()], grace=0.0, **settings),
            clock.replaced(lambda: 1.8e9),
        ):
            counts[tried(request, body)] += 1
            assert config.current().callables == settings.get("callables"), (seed, number, body)
            assert vars(wire_calls.note) == {} and wire_calls.note.__globals__ is vars(wire_calls), body
        imported = {name.partition(".")[0] for name in set(sys.modules) - before} - ALLOWED
        imported = {name for name in imported if "sysconfig" not in name}  # a zone's search path
        assert not imported, (imported, seed, number, body)
    assert peak() - peak_before < MOST_MEMORY
    return counts


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


ALLOWED = {
    "defer_core",
    "zoneinfo",
    "_zoneinfo",
    "tzdata",
    "compat",
    "encodings",
    "importlib",
    "unicodedata",
    "stringprep",
    "google",
}
"""What reading a value of the standard library's may import for itself."""


def tried(request: Request, body: bytes) -> str:
    """The outcome of one request."""
    try:
        status = handle(request).status
    except TypeError:
        return "the task raised"  # a call that came through whole, of a function that takes something else
    except Exception as error:
        error.add_note(f"The body was {body!r}, the headers {dict(request.headers)!r}.")
        raise
    assert status in STATUSES, (status, body)
    return str(status)


def bomb(size: int) -> bytes:
    """A body that inflates to `size` bytes."""
    sealed = envelope.Envelope(payload=b"\x00" * size, created=1.0)
    return frame.wrap(envelope.encode(sealed, compress=True))


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    started, counts, chunk = time.monotonic(), Counter[str](), 10_000
    seeds = range(given.seed, given.seed + -(-given.inputs // chunk))
    with ProcessPoolExecutor() as pool:
        for more in pool.map(fuzz, seeds, [chunk] * len(seeds)):
            counts += more
    answers = ", ".join(f"{count:,} × {answer}" for answer, count in sorted(counts.items()))
    print(f"{sum(counts.values()):,} inputs in {time.monotonic() - started:.0f} s; answers: {answers}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
