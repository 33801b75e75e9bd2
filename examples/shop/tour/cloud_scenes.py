"""The scenes of `--cloud`: what Google's own client sees, and plain defers on the Datastore."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

from orders import tasks

from defer_core import defer
from defer_core.spi import State, TaskRecord, TaskStore, current

from . import emulators
from .checks import Check, seen
from .scenes import LARGE, Scene, Stage, journal, new_order


def plays() -> list[Scene]:
    """The scenes that this machine can play."""
    return [official_client, datastore] if emulators.has_datastore() else [official_client, no_datastore]


def official_client(stage: Stage) -> Iterator[Check]:
    """Google's own client, on the same queue"""
    import grpc
    from google.cloud.tasks_v2 import CloudTasksClient
    from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport

    channel = grpc.insecure_channel(os.environ["CLOUD_TASKS_EMULATOR_HOST"])
    client = CloudTasksClient(transport=CloudTasksGrpcTransport(channel=channel))
    order = new_order()
    handle = defer(tasks.confirm, order.pk, _countdown=3600)
    queue = client.queue_path(emulators.PROJECT, "local", handle.queue_name)
    names = [task.name for task in client.list_tasks(parent=queue)]
    mine = f"{queue}/tasks/{handle.name}"
    stage.display.say(f"list_tasks: {len(names)} waiting; run_task({handle.name}), an hour before its time")
    yield Check(scene="Google's client", claim="list_tasks shows what we deferred", held=mine in names)
    client.run_task(name=mine)
    ran = seen(lambda: journal("confirm", order.pk))
    yield Check(scene="Google's client", claim="run_task ran it in the server", held=ran)
    channel.close()


def no_datastore(stage: Stage) -> Iterator[Check]:
    """Plain defers on the Datastore: not here"""
    stage.display.say("skipped: Google's emulator needs `gcloud` (with its Firestore emulator) and `java` on the path")
    yield from ()


def datastore(stage: Stage) -> Iterator[Check]:
    """Plain defers in transactions of the Datastore, on Google's emulator"""
    from google.cloud import ndb

    store = next(each for each in current().stores if each.name == "ndb")
    with ndb.Client().context():
        yield from _committed(stage, store)
        yield from _rolled_back(stage)
        yield from _buried(stage, store)


def _committed(stage: Stage, store: TaskStore) -> Iterator[Check]:
    from google.cloud import ndb

    document = os.urandom(LARGE)
    handle = ndb.transaction(lambda: defer(tasks.archive, "contract.pdf", document))
    stage.display.say(f"ndb.transaction(… defer(archive, 'contract.pdf', <{LARGE:,} bytes>)) → task {handle.name}")
    arrived = seen(lambda: journal("archive", "contract.pdf"))
    same = arrived and journal("archive", "contract.pdf")[0] == hashlib.sha256(document).hexdigest()
    yield Check(scene="Datastore", claim="300 KB of a committed transaction arrived", held=same)
    gone = seen(lambda: store.get(str(handle.record_id)) is None)
    yield Check(scene="Datastore", claim="the entity is deleted once the task has run", held=gone)


def _rolled_back(stage: Stage) -> Iterator[Check]:
    from google.cloud import ndb

    order = new_order()

    def body() -> None:
        defer(tasks.confirm, order.pk)
        raise ValueError("the payment was refused")

    try:
        ndb.transaction(body)
    except ValueError as error:
        stage.display.say(f"order {order.pk}: rolled back, because {error}")
    marker = new_order()
    ndb.transaction(lambda: defer(tasks.confirm, marker.pk))
    after = seen(lambda: journal("confirm", marker.pk))
    never = not journal("confirm", order.pk)
    yield Check(scene="Datastore", claim="the committed task ran, the rolled-back one never", held=after and never)


def _buried(stage: Stage, store: TaskStore) -> Iterator[Check]:
    from google.cloud import ndb

    ndb.transaction(lambda: defer(tasks.reject, "scrawl.pdf", os.urandom(LARGE)))
    stage.display.say("ndb.transaction(… defer(reject, …)) raises PermanentTaskFailure")
    seen(lambda: store.list(State.DEAD))
    letters: list[TaskRecord] = store.list(State.DEAD)
    yield Check(
        scene="Datastore",
        claim="its permanent failure is kept there, with its error",
        held=len(letters) == 1 and "Nobody can read scrawl.pdf" in letters[0].last_error,
        detail=f"{letters[0].label}: {letters[0].reason}" if letters else "",
    )
