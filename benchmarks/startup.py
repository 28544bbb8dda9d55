"""How long a command keeps its user waiting that trains nothing: help, lists, a mistake, a finished run that is repeated, a dry run.

Each command is started `TIMES` times, and the quickest start counts. Wall seconds are judged. CPU seconds are shown too: neighbours move them less.

    python benchmarks/startup.py               # a few minutes, of them one for the run that is repeated
    python benchmarks/startup.py STORE         # in the store of an earlier run of the tiny recipe

Writes benchmarks/results/startup.json.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from bonsai.stages.store.manifest import host_facts

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "startup.json"
CONFIGS = ROOT / "tests" / "integration" / "configs"
RUN = ("run", str(CONFIGS / "tiny.yaml"), "--profile", str(CONFIGS / "tiny-cpu.yaml"))
TIMES = 5
BAD_CONFIGURATION = 2
READING, MISTAKE, REPEATED, LOOKED_UP = 0.7, 1.0, 2.0, None
"""Goals, in seconds; None where there is none, and the figure is for comparison."""


class Command(NamedTuple):
    """What is started, how it must end, and how soon."""

    words: tuple[str, ...]
    goal: float | None
    code: int = 0


def main(*arguments: str) -> None:
    """Time every command and write the result."""
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(arguments[0]) if arguments else Path(scratch)
        repeated = (*RUN, "--store", str(store), "--allow-undecided")
        start(repeated, 0)  # the run that is repeated, where the store does not have it
        package = str(store / "packages" / "tiny--tiny-cpu")
        commands = [
            Command(("--help",), READING),
            Command(("list", "profiles"), READING),
            Command(("list", "recipes"), READING),
            Command(("schema", "recipe"), READING),
            Command(("show", package), READING),
            Command(("run", "resnet-edge", "--set", "prune.epii=2"), MISTAKE, BAD_CONFIGURATION),
            Command(("run", "resnet-egde"), MISTAKE, BAD_CONFIGURATION),
            Command(("run", "resnet-edge", "--profile", "lokal-cpu"), MISTAKE, BAD_CONFIGURATION),
            Command(("compare", "resnet-edge", "--set", "prune.epii=2"), MISTAKE, BAD_CONFIGURATION),
            Command(("compare", "resnet-edge", "--profile", "lokal-cpu"), MISTAKE, BAD_CONFIGURATION),
            Command(("characterize", "resnet-egde"), MISTAKE, BAD_CONFIGURATION),
            Command(repeated, REPEATED),
            Command((*repeated, "--dry-run"), LOOKED_UP),
        ]
        rows = []
        for command in commands:
            wall, cpu = (min(part) for part in zip(*(start(command.words, command.code) for _ in range(TIMES)), strict=True))
            shown = " ".join(command.words).replace(str(store), "STORE").replace(f"{CONFIGS}/", "")
            rows.append({"command": f"bonsai {shown}", "wall_s": wall, "cpu_s": cpu, "goal_s": command.goal})
            goal = f"goal {command.goal} s" if command.goal is not None else "no goal   "
            print(f"{wall:7.2f} s wall {cpu:7.2f} s CPU   {goal}   bonsai {shown}", flush=True)
    RESULT.write_text(json.dumps({"what": f"the quickest of {TIMES} starts", "commands": rows, **host_facts()}, indent=2) + "\n")


def start(words: tuple[str, ...], code: int) -> tuple[float, float]:
    """Run a command to its end; return wall and CPU seconds."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "bonsai", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != code:
        raise SystemExit(f"bonsai {' '.join(words)}: ended with code {process.returncode}, expected {code}")
    return wall, used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main(*sys.argv[1:])
