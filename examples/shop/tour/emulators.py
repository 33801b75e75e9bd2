"""Google Cloud without Google: the Cloud Tasks API of `defer-local`, and the Datastore's emulator where it is found."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .processes import Dispatcher, Process, answers, free_port

PROJECT = "shop"
JAR = "platform/cloud-firestore-emulator/cloud-firestore-emulator.jar"
MAIN = "com.google.cloud.datastore.emulator.firestore.CloudFirestore"


def choose() -> None:
    """Say, before the settings are read, where Cloud Tasks and the Datastore will be."""
    os.environ |= {"GOOGLE_CLOUD_PROJECT": PROJECT, "CLOUD_TASKS_LOCATION": "local"}
    os.environ["CLOUD_TASKS_EMULATOR_HOST"] = f"127.0.0.1:{free_port()}"
    if find_jar() is not None:
        os.environ |= {"DATASTORE_EMULATOR_HOST": f"127.0.0.1:{free_port()}", "DATASTORE_PROJECT_ID": PROJECT}


def make_queues(dispatcher: Dispatcher) -> None:
    """Make the queues that the settings declare, as a deployment does. Raises RuntimeError with the server's output."""
    from django.core.management import call_command

    if not answers(_port("CLOUD_TASKS_EMULATOR_HOST")):
        raise RuntimeError(f"The Cloud Tasks API does not answer:\n{dispatcher.output()}")
    call_command("defer_queues", "create")


def has_datastore() -> bool:
    """Whether there is an emulator of the Datastore."""
    return "DATASTORE_EMULATOR_HOST" in os.environ


def find_jar() -> Path | None:
    """The emulator in the Google Cloud SDK that the `gcloud` on the path belongs to, if there is Java too."""
    gcloud = shutil.which("gcloud")
    jar = Path(gcloud).resolve().parent.parent / JAR if gcloud else None
    return jar if jar is not None and jar.exists() and shutil.which("java") else None


def start_datastore(data: Path) -> Process | None:
    """Start the emulator where there is one, and wait until it answers. Raises RuntimeError with its output."""
    jar, java = find_jar(), shutil.which("java")
    if jar is None or java is None:
        return None
    port = _port("DATASTORE_EMULATOR_HOST")
    options = ["start", "--host=127.0.0.1", f"--port={port}", "--database-mode=datastore-mode"]
    process = Process("datastore", ["-cp", str(jar), MAIN, *options], data, program=java)
    if not answers(port):
        raise RuntimeError(f"The Datastore's emulator does not answer:\n{process.output()}")
    return process


def _port(variable: str) -> int:
    return int(os.environ[variable].rpartition(":")[2])
