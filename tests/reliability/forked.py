"""Runs `bonsai` in children of one process that has imported everything, so that a run that is to die early starts at once.

    python tests/reliability/forked.py      # requests as JSON, a line each, on stdin; two answers to each: {"pid": ...}, then {"code": ..., "died_at": ...}

A child may be told to die, by a signal that it sends to itself, before the first of its renames, fsyncs and saves that is not in a list.
"""

import importlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
IMPORTED = ("bonsai.pipeline.cli.main", "bonsai.pipeline.run.flow", "torch", "torch_pruning", "onnx", "onnxruntime", "onnxscript", "bonsai.stages.worker")
TURNS = {
    "os": ("rename", "replace", "fsync"),
    "safetensors.torch": ("save_file", "serialize_file"),
    "safetensors.numpy": ("save_file", "serialize_file"),
    "pathlib.Path": ("write_text", "write_bytes"),
}
"""What is counted, where it is looked up."""
ALL_TURNS = tuple(name for names in TURNS.values() for name in names)


class Ended(NamedTuple):
    """How a run ended.

    Attributes:
        code: Exit code; minus the signal's number where one ended it.
        died_at: What it was about to do when it killed itself; empty where it did not.
        said: Its output and its errors.
    """

    code: int
    died_at: str
    said: str


class Runs:
    """Children of one process, one at a time.

    Args:
        folder: Receives the logs.
        environment: Variables beside this process's own.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] = {}) -> None:
        self._log = folder / "log"
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")]), **environment},
        )

    def __enter__(self) -> "Runs":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    def run(
        self,
        arguments: Sequence[str],
        *,
        done: Sequence[str] | None = None,
        by: signal.Signals = signal.SIGKILL,
        turns: Sequence[str] = ALL_TURNS,
        limits: Mapping[str, int] = {},
        meanwhile: Callable[[int], None] = lambda pid: None,
    ) -> Ended:
        """Run one command to its end.

        Args:
            arguments: After `bonsai`.
            done: Dies before the first event that is not in it; None for a run that does not kill itself.
            by: The signal that it dies by.
            turns: Names of the functions whose calls are counted, of `TURNS`.
            limits: Of `resource`, by name without ``RLIMIT_``.
            meanwhile: Called with the number of its process once it is there.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        request = {
            "arguments": list(arguments),
            "done": list(done) if done is not None else None,
            "by": int(by),
            "turns": list(turns),
            "limits": dict(limits),
            "log": str(self._log),
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        meanwhile(json.loads(self._process.stdout.readline())["pid"])
        answer = json.loads(self._process.stdout.readline())
        return Ended(**answer, said=self._log.read_text(encoding="utf-8", errors="replace"))


def main() -> None:
    """Serve requests until stdin ends."""
    for name in IMPORTED:
        importlib.import_module(name)
    answers = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no answer
    for line in sys.stdin:
        request = json.loads(line)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(answers)
            os.close(reader)
            _serve(request, writer)
        os.close(writer)
        _answer(answers, {"pid": child})
        with os.fdopen(reader) as events:
            died_at = events.read()
        status = os.waitpid(child, 0)[1]
        _answer(answers, {"code": os.waitstatus_to_exitcode(status), "died_at": died_at})


def _answer(descriptor: int, answer: Mapping[str, Any]) -> None:
    os.write(descriptor, (json.dumps(answer) + "\n").encode())


def _serve(request: dict[str, Any], events: int) -> None:
    """Become the run."""
    os.setsid()
    log = os.open(request["log"], os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w", buffering=1), open(2, "w", buffering=1)  # noqa: SIM115  # until the process ends
    os.set_inheritable(events, False)
    for name, limit in request["limits"].items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))
    if request["done"] is not None:
        _die_before(frozenset(request["done"]), signal.Signals(request["by"]), request["turns"], events)
    from bonsai.pipeline.cli.main import main as bonsai

    sys.argv = ["bonsai", *request["arguments"]]
    code: object = 1
    try:
        bonsai()
    except SystemExit as end:
        code = end.code
    except BaseException:  # what Python itself would do
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _die_before(done: frozenset[str], by: signal.Signals, turns: Sequence[str], events: int) -> None:
    """Let the process kill itself before the first event of a kind that is not in `done`; its kind is written down first."""
    alive = [True]

    def watched(function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            kind = f"{name} {_kind_of(args)}"
            if alive[0] and kind not in done:
                alive[0] = False
                os.write(events, kind.encode())
                os.kill(os.getpid(), by)
            return function(*args, **options)

        return call

    for place, name in _turns():
        if name not in turns:
            continue
        setattr(place, name, watched(getattr(place, name), f"{place.__name__}.{name}"))


def _turns() -> Iterator[tuple[Any, str]]:
    for owner, names in TURNS.items():
        module, _, attribute = owner.partition(".") if owner.startswith("pathlib") else (owner, "", "")
        place = importlib.import_module(module)
        place = getattr(place, attribute) if attribute else place
        for name in names:
            if hasattr(place, name):
                yield place, name


def _kind_of(args: Sequence[Any]) -> str:
    """Return what the arguments say of a place in the store, without keys and other names that are another each time."""
    said = [str(Path(f"/proc/self/fd/{each}").readlink()) if isinstance(each, int) else str(each) for each in args[:3] if isinstance(each, int | str | Path)]
    paths = [text for text in said if "/" in text and len(text) < 500]
    return " ".join(re.sub(r"[0-9a-f]{16,}|(?<=[-_.])[a-z0-9_]{8}(?=/|$|\.)|\d+", "*", "/".join(Path(path).parts[-4:])) for path in paths)


if __name__ == "__main__":
    main()
