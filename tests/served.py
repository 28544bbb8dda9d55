"""A `bonsai serve` in a process of its own, and how tests speak to it: by Prefect's command line, and by its API as the UI does."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TINY: Mapping[str, Any] = {
    "model.name": "resnet8",
    "data.options": {"size": 16},
    "training.epochs": 2,
    "training.threads": 1,
    "prune.epi": {"every": 0.08, "window": 1, "monotone": 1},
    "prune.rounds": 2,
    "quantize.epochs": 2,
    "export.min_agreement": 0.8,
    "timing.fitting": 4,
    "timing.runs": 200,
    "timing.warmup_runs": 20,
    "timing.warmup_seconds": 0.05,
    "profile.budget.latency": 0.9,
    "prune.margin": 0.25,
    "profile.gates.max_accuracy_drop": 1.0,
}
READY_SECONDS, RUN_SECONDS = 300, 480


@dataclass
class Served:
    """A `bonsai serve` in progress."""

    folder: Path
    environment: dict[str, str]
    pid: int

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def log(self) -> str:
        return (self.folder / "serve.log").read_text()

    def prefect(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of Prefect's command line, as in a second shell."""
        return self.python("-m", "prefect", *arguments)

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=RUN_SECONDS + 30,
        )

    def prefect_json(self, *arguments: str) -> Any:
        done = self.prefect(*arguments, "--output", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Call the API as a page of the UI does, with its token."""
        base, client = self.environment["PREFECT_API_URL"], str(uuid.uuid4())
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        headers = {"Content-Type": "application/json"}
        if method != "GET":
            with direct.open(f"{base}/csrf-token?client={client}", timeout=10) as reply:
                headers |= {"Prefect-Csrf-Token": json.loads(reply.read())["token"], "Prefect-Csrf-Client": client}
        data = None if body is None else json.dumps(body).encode()
        with direct.open(urllib.request.Request(base + path, method=method, headers=headers, data=data), timeout=10) as reply:
            return json.loads(reply.read() or "null")

    def start(self, deployment: str, parameters: Mapping[str, Any], **more: object) -> str:
        """Submit a run as the UI's form does, and return its id; `more` is what else the form sends, such as `job_variables`."""
        found = self.call("GET", f"/deployments/name/{deployment}")
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}, **more}
        return str(self.call("POST", f"/deployments/{found['id']}/create_flow_run", body)["id"])

    def outcome(self, run_id: str) -> tuple[str, str]:
        """Wait until a run ends, and return the type and the message of its state."""
        wait_for(lambda: self.state(run_id) in ("COMPLETED", "FAILED", "CRASHED"))
        state = self.call("GET", f"/flow_runs/{run_id}")["state"]
        return state["type"], state["message"] or ""

    def cancel(self, run_id: str) -> None:
        """Do what the UI's Cancel does."""
        self.call("POST", f"/flow_runs/{run_id}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})

    def state(self, run_id: str) -> str:
        """Return a run's state; empty while no server answers."""
        try:
            return str(self.call("GET", f"/flow_runs/{run_id}")["state"]["type"])
        except urllib.error.HTTPError:
            raise
        except OSError:
            return ""

    def messages(self, run_id: str) -> list[str]:
        """Return the lines of a run's log."""
        return [line["message"] for line in self.prefect_json("flow-run", "logs", run_id)]

    def artifacts(self, run_id: str) -> dict[str, Any]:
        """Return a run's artifacts by key."""
        found = self.call("POST", "/artifacts/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
        return {artifact["key"]: artifact for artifact in found}

    def children(self, part: str) -> list[int]:
        """Return the processes that `bonsai serve` started and whose command line holds `part`."""
        threads = Path(f"/proc/{self.pid}/task").iterdir()
        pids = [int(pid) for thread in threads for pid in (thread / "children").read_text().split()]
        return [pid for pid in pids if part in Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")]


@dataclass
class Watched:
    """What `prefect deployment run --watch` left."""

    returncode: int
    output: str
    run_id: str


@contextmanager
def serving(folder: Path, *options: str, **variables: str) -> Iterator[Served]:
    """Run `bonsai serve` on a store in the folder while the block runs, with further options and environment variables."""
    (folder / "home").mkdir()
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "BONSAI_"))}
    # One thread, because two that wait for each other take ten times as long where other work shares their cores.
    own |= {
        "HOME": str(folder / "home"),
        "BONSAI_PORT": str(free_port()),
        "PYTHONPATH": str(ROOT / "src"),
        "COLUMNS": "1000",
        "DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": "1",
        **variables,
    }
    log = folder / "serve.log"
    with log.open("w") as stream, subprocess.Popen([*serve_command(folder), *options], cwd=folder, env=own, stdout=stream, stderr=subprocess.STDOUT) as process:
        try:
            wait_until_ready(process, log)
            second_shell = {"PREFECT_API_URL": f"http://127.0.0.1:{own['BONSAI_PORT']}/api", "PREFECT_HOME": str(folder / "store" / ".prefect")}
            yield Served(folder, {**own, **second_shell, "NO_PROXY": "127.0.0.1"}, process.pid)
        finally:
            process.terminate()
            try:
                assert process.wait(60) == 0, log.read_text()
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    assert "Traceback" not in log.read_text(), log.read_text()


def serve_command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "bonsai", "serve", "--store", str(folder / "store")]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + READY_SECONDS
    while "Ready." not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.2)


def wait_for(condition: Callable[[], object], seconds: float = RUN_SECONDS, every: float = 0.2) -> float:
    """Wait until a condition holds, and return the seconds that it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() < start + seconds, f"not within {seconds} s"
        time.sleep(every)
    return time.monotonic() - start


def watch(served: Served, overrides: Mapping[str, Any]) -> Watched:
    arguments = ("--watch", "--watch-timeout", str(RUN_SECONDS), "--param", f"overrides={json.dumps(overrides)}")
    done = served.prefect("deployment", "run", "compress/resnet-edge", *arguments)
    run_id = done.stdout.partition("UUID: ")[2].split()
    assert run_id, done.stdout + done.stderr
    return Watched(done.returncode, done.stdout, run_id[0])
