"""The example that Prometheus watches tells all that its alerts ask for."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from urllib.request import Request, urlopen

import services
from outside.processes import Processes, wait_for

EXAMPLE = Path(__file__).parents[2] / "examples" / "prometheus"


def scrape(url: str) -> dict[str, list[dict[str, str]]]:
    """The labels of the samples of each name that /metrics has."""
    parser = services.library("prometheus_client.parser")
    found: dict[str, list[dict[str, str]]] = {}
    with urlopen(f"{url}/metrics", timeout=30) as answer:
        for family in parser.text_string_to_metric_families(answer.read().decode()):
            for sample in family.samples:
                found.setdefault(sample.name, []).append(sample.labels)
    return found


def asked_for() -> set[str]:
    """The names of the metrics in the rules; labels stand in braces and after `by`."""
    rules = services.library("yaml").safe_load((EXAMPLE / "alerts.yml").read_text())
    queries = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    bare = re.sub(r"\{[^}]*\}|by \([^)]*\)", "", " ".join(queries))
    return set(re.findall(r"\b(?:defer|messaging)_\w+", bare))


def test_every_metric_of_the_alerts_is_scraped_from_the_example(processes: Processes, tmp_path: Path) -> None:
    for each in EXAMPLE.iterdir():
        shutil.copy(each, tmp_path)
    port = services.free_port()
    url = f"http://127.0.0.1:{port}"
    assert processes.python("main.py", "migrate", "-v", "0").ends() == 0
    serve = ["--bind", f"127.0.0.1:{port}", "--threads", "8", "main:application"]
    site = processes.serve(port, "-m", "gunicorn", *serve)
    queue = processes.python("-m", "defer_local", "--url", url)
    urlopen(Request(url, method="POST", data=b""), timeout=30).close()
    wait_for(lambda: "All rows are counted." in site.output(), "the iteration", site, queue)
    wait_for(lambda: "defer_dead_letters_total" in scrape(url), "the dead letter", site, queue)
    found = scrape(url)
    assert len(asked_for()) == 7
    assert asked_for() <= set(found), site.output()
    assert [each["code_function_name"] for each in found["defer_dead_letters_total"]] == ["main.refuse"]
    assert [each["code_function_name"] for each in found["defer_iteration_rows_total"]] == ["main.count"]
