"""Bodies that released versions have queued run for ever. The files are never made again: a new form gets new files."""

from __future__ import annotations

from pathlib import Path

import pytest
from compat.wire_calls import CALLS, ran

from defer_core import Delivery, Outcome, clock, execute
from defer_core.record import TaskRecord
from defer_core.testing import MemoryStore, in_memory
from defer_core.wire import envelope, frame

FILES = Path(__file__).parent / "golden" / "wire_v1"
MADE = 1_790_000_000.125
FIRST = Delivery(task_name="t", queue="default", retry_count=0)


def body(name: str) -> bytes:
    return (FILES / f"{name}.bin").read_bytes()


@pytest.mark.parametrize("name", sorted(CALLS))
def test_a_call_of_each_kind_runs(name: str) -> None:
    ran.clear()
    with in_memory(), clock.replaced(lambda: MADE):
        assert execute(body(name), FIRST) is Outcome.DONE
    assert ran == [CALLS[name].expected()]


@pytest.mark.parametrize("name", ["compressed", "compressed_signed", "signed"])
def test_each_form_of_the_envelope_is_read(name: str) -> None:
    ran.clear()
    keys = ["another", "golden secret"] if "signed" in name else []
    with in_memory(keys=keys), clock.replaced(lambda: MADE):
        assert execute(body(name), FIRST) is Outcome.DONE
    assert ran == [(("x" * 3000,) if "compressed" in name else (1,), {})]


def test_a_claim_is_read() -> None:
    ran.clear()
    store = MemoryStore()
    payload = (FILES / "claim_signed.payload").read_bytes()
    with in_memory(store=store, keys=["golden secret"]):
        claim = envelope.decode(frame.unwrap(body("claim_signed"))).claim_check
        assert claim is not None and (claim.store, claim.alias, claim.size) == ("memory", "", len(payload))
        store.put([TaskRecord(id=claim.key, envelope=b"", payload=payload)])
        assert execute(body("claim_signed"), FIRST) is Outcome.DONE
    [((data,), kwargs)] = ran
    assert len(data) == 2000 and kwargs == {}


def test_deadline_expiry_and_creation_are_read() -> None:
    wire = frame.unwrap(body("deadline_and_expiry"))
    sealed = envelope.decode(wire)
    assert (sealed.created, sealed.deadline, sealed.expires) == (MADE, 30, MADE + 60)
    assert envelope.created_at(wire) == MADE


def test_no_golden_file_is_forgotten() -> None:
    others = {"compressed", "compressed_signed", "signed", "claim_signed", "deadline_and_expiry"}
    assert {file.stem for file in FILES.iterdir()} == set(CALLS) | others
