"""What strangers bring: the first four networks of 34 modules of timm and torchvision, each taken from the dry run to the engine.

    python benchmarks/zoo.py                        # what has no row yet; results/zoo.json and docs/zoo.md; hours
    python benchmarks/zoo.py --only resnet/ecaresnet101d --again all
    python benchmarks/zoo.py --again incomplete     # those once more that were not complete
    python benchmarks/zoo.py --write                # runs nothing, writes docs/zoo.md

A process each, on one thread, with limits of time and memory: what kills one leaves the others alone. A run that is stopped goes on.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import date
from pathlib import Path
from typing import Any

from zoo_page import outcome, write_page

from bonsai.stages.store.manifest import host_facts

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "zoo.json"
STEPS = HERE / "zoo_steps.py"
Row = dict[str, Any]
WAIT = 10
"""Seconds by the clock for a second of CPU time that a network may take, on a machine with other work."""


def main() -> None:
    """Run what is asked for and write results and page."""
    parser = argparse.ArgumentParser(description="Networks of timm and torchvision from the dry run to the engine")
    parser.add_argument("--module", action="append", help="only this module; may be repeated")
    parser.add_argument("--only", action="append", metavar="MODEL", help="only this network, as MODEL or MODULE/MODEL; may be repeated")
    parser.add_argument("--again", choices=["incomplete", "all"], help="run those too that have a row")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once, a thread each")
    parser.add_argument("--seconds", type=int, default=900, help="CPU time that a network may take; ten times as long by the clock")
    parser.add_argument("--memory", type=float, default=12, help="GB that a network may take")
    parser.add_argument("--write", action="store_true", help="run nothing, write docs/zoo.md from the results")
    options = parser.parse_args()
    rows = read_rows()
    if not options.write:
        asked = [key for key in all_keys() if selected(key, rows, options.module, options.only, options.again)]
        run_all(asked, rows, jobs=options.jobs, seconds=options.seconds, memory=options.memory)
    write_page(rows, host_facts() if not RESULTS.exists() else json.loads(RESULTS.read_text()))


def all_keys() -> list[str]:
    """Return the zoo's networks in order."""
    from zoo_models import entries  # costs seconds, and only a run pays them

    return [entry.key for entry in entries()]


def read_rows() -> dict[str, Row]:
    """Return the rows that are there, by network."""
    return {f"{row['module']}/{row['model']}": row for row in json.loads(RESULTS.read_text())["rows"]} if RESULTS.exists() else {}


def selected(key: str, rows: dict[str, Row], modules: list[str] | None, only: list[str] | None, again: str | None) -> bool:
    """Whether a network is to be run."""
    module, _, model = key.partition("/")
    if (modules and module not in modules) or (only and key not in only and model not in only):
        return False
    return key not in rows or again == "all" or (again == "incomplete" and outcome(rows[key]) != "complete")


def run_all(keys: Iterable[str], rows: dict[str, Row], *, jobs: int, seconds: int, memory: float) -> None:
    """Run networks and write the results after each."""
    order = {key: position for position, key in enumerate(all_keys())}
    with ThreadPoolExecutor(jobs) as pool:
        for done in as_completed([pool.submit(run_one, [sys.executable, str(STEPS)], key, seconds, memory) for key in keys]):
            row = {**done.result(), "run": date.today().isoformat()}
            rows[f"{row['module']}/{row['model']}"] = row
            ordered = sorted(rows.items(), key=lambda item: order.get(item[0], len(order)))
            rows.clear()
            rows.update(ordered)
            RESULTS.write_text(json.dumps({**host_facts(), "rows": list(rows.values())}, indent=1) + "\n")
            print(f"{row['module'] + '/' + row['model']:45} {row['seconds']:6.0f} s  {outcome(row)}", flush=True)


def run_one(command: list[str], key: str, seconds: int, memory: float) -> Row:
    """Run one network in a process of its own and return its row, whatever became of the process.

    Args:
        command: What starts the process; the network, the row's file and the limits are added.
        key: The network.
        seconds: Of CPU time.
        memory: GB.
    """
    module, _, model = key.partition("/")
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        file = Path(folder) / "row.json"
        limits = ["--seconds", str(seconds), "--memory", str(memory)]
        process = subprocess.Popen([*command, key, str(file), *limits], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            _, told = process.communicate(timeout=WAIT * seconds)
            ended = _words(process.returncode, told, seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            ended = f"no end within {WAIT * seconds} s"
        row: Row = json.loads(file.read_text()) if file.exists() else {"module": module, "model": model, "steps": {}, "differences": {}, "seconds": 0}
    running = [step for step, found in row["steps"].items() if found["outcome"] == "running"]
    if running or (ended and not row["steps"]):
        row["steps"][running[0] if running else "dry run"] = {"outcome": "failed", "reason": ended or "the process ended without a word", "seconds": 0}
    return row


def _words(code: int, told: str, seconds: int) -> str:
    """Return how a process ended, empty where it ended well."""
    if code == -signal.SIGXCPU:
        return f"no end within {seconds} s of CPU time"
    if code < 0:
        return f"the process was killed by {signal.Signals(-code).name}"
    last = next(iter(reversed(told.strip().splitlines())), "")
    return f"the process ended with code {code}: {last[:300]}" if code else ""


if __name__ == "__main__":
    main()
