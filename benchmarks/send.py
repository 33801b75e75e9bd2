"""Enqueueing on Cloud Tasks: CPU beside a raw gRPC call with a prebuilt message, and beside Google's client.

The server is a small one on the loopback, in a process of its own; CPU is this process's. What Djangae does (Google's
client, a deep copy and a pickle of the call) is written afresh here, for the comparison.
"""

from __future__ import annotations

import copy
import os
import pickle
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.cloud import tasks_v2
from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport

from defer_core import configure, defer, defer_many
from defer_core.stores.memory import MemoryStore
from defer_core.task import Routing
from defer_core.transports.base import Message
from defer_core.transports.cloud.message import build, protobuf
from defer_core.transports.cloud.transport import CloudTasksTransport

from ._figures import Figure
from .codec import a_model

ROUNDS, CALLS = 31, 100
SERVER = Path(__file__).parents[1] / "tests" / "cloud_server.py"
PARENT = "projects/p/locations/l/queues/default"
SCALARS = (17, "ship", 3.5, True, None)
KEYS = ["0123456789abcdef" * 3]
"""Secrets: Django signs by default, so the rows do."""


def task(*args: Any, **kwargs: Any) -> None:
    """What is deferred; nothing runs it."""


def rows() -> list[Figure]:
    """The figures: microseconds of CPU a call; and of many, milliseconds."""
    return [*over_plain_text(), *over_tls(), *many(0.0), *many(0.01), *calls_made()]


def over_plain_text() -> list[Figure]:
    """Beside the floor."""
    order = a_model()
    with served() as port:
        sender = CloudTasksTransport(project="p", location="l", emulator_host=f"127.0.0.1:{port}")
        configure(transport=sender, store=MemoryStore(), keys=KEYS, sweep_interval=0)
        call, prebuilt, small = bare_call(port), build(a_message(), sender.target), a_message()
        client = gapic(grpc.insecure_channel(f"127.0.0.1:{port}"))
        floor, sent, scalars, model, stored, theirs = cpu(
            lambda: call(prebuilt),
            lambda: sender.send(small),
            lambda: defer(task, *SCALARS, _small_task=True),
            lambda: defer(task, order, _small_task=True),
            lambda: defer(task, *SCALARS),
            lambda: client.create_task(parent=PARENT, task=a_dict(b"x" * 200)),
        )
    what = "CPU of {} / a raw gRPC call with a prebuilt message"
    return [
        figure(what.format("defer(_small_task=True), scalars"), floor, scalars, "≤ 1.10"),
        figure(what.format("defer(_small_task=True), a model of 10 fields"), floor, model, "≤ 1.35"),
        figure(what.format("the transport's send() alone (its message, deadline and metadata)"), floor, sent, ""),
        figure(what.format("defer(), scalars, stored in memory"), floor, stored, ""),
        figure(what.format("Google's create_task alone"), floor, theirs, "(1.8 expected)"),
    ]


def over_tls() -> list[Figure]:
    """With credentials, beside what Djangae does."""
    order = a_model()
    with tempfile.TemporaryDirectory() as folder, served("--tls", folder) as port:
        root, token = Path(folder, "certificate.pem").read_bytes(), a_token()
        where = f"localhost:{port}"
        sender = CloudTasksTransport(
            project="p", location="l", endpoint=where, root_certificates=root, credentials=token
        )
        configure(transport=sender, store=MemoryStore(), keys=KEYS, sweep_interval=0)
        client = gapic(secure_channel(where, root, token))
        ours, theirs = cpu(
            lambda: defer(task, order, _small_task=True),
            lambda: as_djangae_does(client, order),
        )
    return [figure("CPU of defer(), a model of 10 fields, over TLS / as Djangae does it", theirs, ours, "≤ 0.45")]


def many(delay: float) -> list[Figure]:
    """A thousand tasks, with batches and without, beside a loop of Google's client."""
    with served(str(delay)) as port:
        client = gapic(grpc.insecure_channel(f"127.0.0.1:{port}"))
        calls = [SCALARS] * 1000
        senders = [
            CloudTasksTransport(project="p", location="l", emulator_host=f"127.0.0.1:{port}", batch=batch)
            for batch in (False, True)
        ]
        counted = 100 if delay else 1000
        found: list[list[float]] = [[], [], []]
        for _ in range(3):
            found[0].append(wall(lambda: loop(client, counted)) * 1000 / counted)
            for number, sender in enumerate(senders, 1):
                configure(transport=sender, store=MemoryStore(), keys=KEYS, sweep_interval=0)
                found[number].append(wall(lambda: defer_many(task, calls)))
    theirs, single, batched = map(statistics.median, found)
    away = f"{delay * 1000:g} ms away"
    goals = ("≥ 40", "≥ 40") if delay else ("≥ 3", "≥ 20")
    return [
        (f"a loop of Google's client / defer_many of 1,000, {how}, {away}", ms(theirs), ms(ours), theirs / ours, goal)
        for how, ours, goal in zip(("in single calls", "in batches"), (single, batched), goals, strict=True)
    ]


def calls_made() -> list[Figure]:
    """Calls over the network in the caller's path, with the Datastore; no figures where its emulator is missing."""
    sys.path.insert(0, str(SERVER.parent))
    import services
    from cloud_server import CloudServer, serving

    try:
        os.environ["DATASTORE_EMULATOR_HOST"] = services.start_firestore()
    except services.MissingServiceError:
        return []
    from google.cloud import ndb

    from defer_core.stores.ndb.store import NdbTaskStore

    store = NdbTaskStore(project=services.PROJECT, namespace=f"bench-{os.getpid()}")
    with serving(CloudServer(batches=True)) as server, ndb.Client(project=services.PROJECT).context():
        where = f"127.0.0.1:{server.port}"
        configure(transport=CloudTasksTransport(project="p", location="l", emulator_host=where), store=store, keys=KEYS)
        large = os.urandom(300_000)
        counts = {
            "defer(_small_task=True)": counted(server, lambda: defer(task, 1, _small_task=True)),
            "defer()": counted(server, lambda: defer(task, 1)),
            "defer() of 300 KB": counted(server, lambda: defer(task, large)),
            "defer() in a transaction, beside that": counted(server, lambda: ndb.transaction(lambda: defer(task, 1)))
            - 2,
        }
        many = counted(server, lambda: defer_many(task, [(number,) for number in range(1000)]))
    goals = ("≤ 0.34", "≤ 0.67", "≤ 0.67", "≤ 0.34")
    what = "calls of {} / of Djangae 1.1 (8 of Djangae 2 on gcloudc)"
    figures = [
        (what.format(name), "3", str(count), count / 3, goal)
        for (name, count), goal in zip(counts.items(), goals, strict=True)
    ]
    return [*figures, ("calls of defer_many of 1,000 / one each", "1000", str(many), many / 1000, "")]


def counted(server: Any, call: Callable[[], Any]) -> int:
    """The calls that something makes, of the store and of the queue."""
    from google.cloud.ndb import _datastore_api

    original, made, before = _datastore_api.make_call, [], len(server.calls)
    _datastore_api.make_call = lambda name, *args, **kwargs: (made.append(name), original(name, *args, **kwargs))[1]
    try:
        call()
    finally:
        _datastore_api.make_call = original
    return len(made) + len(server.calls) - before


# --- measuring --------------------------------------------------------------------------------------------------------


def cpu(*calls: Callable[[], Any]) -> list[float]:
    """Seconds of this process's CPU a call, the median of rounds taken in turn."""
    found: list[list[float]] = [[] for _ in calls]
    for number in range(ROUNDS + 1):
        for index, call in enumerate(calls):
            began = time.process_time()
            for _ in range(CALLS):
                call()
            if number:  # the first round warms up
                found[index].append((time.process_time() - began) / CALLS)
    return [statistics.median(each) for each in found]


def wall(call: Callable[[], Any]) -> float:
    """Seconds of a call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def figure(what: str, floor: float, ours: float, goal: str) -> Figure:
    """A ratio of CPU times."""
    return what, us(floor), us(ours), ours / floor, goal


def us(seconds: float) -> str:
    """Microseconds."""
    return f"{seconds * 1e6:.0f} µs"


def ms(seconds: float) -> str:
    """Milliseconds."""
    return f"{seconds * 1e3:.0f} ms"


# --- peers ------------------------------------------------------------------------------------------------------------


def a_message() -> Message:
    """As large as the task of the scalars."""
    return Message(body=b"x" * 200, routing=Routing(url="/_ah/queue/deferred"))


def a_dict(body: bytes) -> dict[str, Any]:
    """A task as people write it for Google's client."""
    return {"app_engine_http_request": {"relative_uri": "/_ah/queue/deferred", "body": body}}


def bare_call(port: int) -> Callable[[Any], Any]:
    """`CreateTask` as gRPC has it, on a channel of its own."""
    pb = protobuf()
    return grpc.insecure_channel(f"127.0.0.1:{port}").unary_unary(  # type: ignore[no-any-return]
        "/google.cloud.tasks.v2.CloudTasks/CreateTask",
        request_serializer=pb.CreateTaskRequest.SerializeToString,
        response_deserializer=pb.Task.FromString,
    )


def gapic(channel: Any) -> tasks_v2.CloudTasksClient:
    """Google's client on a channel."""
    return tasks_v2.CloudTasksClient(transport=CloudTasksGrpcTransport(channel=channel))


def loop(client: tasks_v2.CloudTasksClient, count: int) -> None:
    """One call after another."""
    for _ in range(count):
        client.create_task(parent=PARENT, task=a_dict(b"x" * 200))


def as_djangae_does(client: tasks_v2.CloudTasksClient, order: Any) -> None:
    """Copy the arguments, pickle the call, and make the task with Google's client."""
    args = copy.deepcopy((order,))
    client.create_task(parent=PARENT, task=a_dict(pickle.dumps((task, args, {}))))


def a_token() -> Any:
    """Credentials that never end."""
    from google.oauth2.credentials import Credentials

    return Credentials(token="token")  # type: ignore[no-untyped-call]


def secure_channel(where: str, root: bytes, credentials: Any) -> Any:
    """A channel with Google's own plug-in for the token, as its client makes one."""
    from google.auth.transport.grpc import AuthMetadataPlugin
    from google.auth.transport.requests import Request

    plugin = grpc.metadata_call_credentials(AuthMetadataPlugin(credentials, Request()))
    return grpc.secure_channel(where, grpc.composite_channel_credentials(grpc.ssl_channel_credentials(root), plugin))


@contextmanager
def served(*arguments: str) -> Iterator[int]:
    """The port of a server in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(SERVER), str(port), *arguments], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield port
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
