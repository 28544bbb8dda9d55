"""A Prefect server and a process worker in processes of their own, with the deployments of `prefect.yaml`, as docs/prefect.md says."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from served import READY_SECONDS, ROOT, Served, free_port, wait_for

from bonsai.pipeline.service.local_server import answers, home, settings


@contextmanager
def working(folder: Path, **variables: str) -> Iterator[Served]:
    """Run a server, and a worker with its store in the folder, while the block runs, with further environment variables."""
    (folder / "home").mkdir()
    home(folder / "store").mkdir(parents=True)
    port = free_port()
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "BONSAI_"))}
    own |= {
        "HOME": str(folder / "home"),
        "PYTHONPATH": str(ROOT / "src"),
        "COLUMNS": "1000",
        "OMP_NUM_THREADS": "1",
        **settings(folder / "store", port, {}),
        **variables,
    }
    served = Served(folder, own, 0)
    with running(served, folder / "server.log", "server", "start", "--port", str(port)) as server:
        wait_for(lambda: answers(port) or server.poll() is not None, seconds=READY_SECONDS)
        assert server.poll() is None, (folder / "server.log").read_text()
        prepare(served)
        with running(served, folder / "worker.log", "worker", "start", "--pool", "bonsai", "--limit", "1"):
            yield Served(folder, own, server.pid)


def prepare(served: Served) -> None:
    """Make the work pool, and deploy what `prefect.yaml` holds."""
    for command in (["work-pool", "create", "bonsai", "--type", "process"], ["--no-prompt", "deploy", "--all"]):
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *command], cwd=ROOT, env=served.environment, capture_output=True, text=True, check=False, timeout=READY_SECONDS
        )
        assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def running(served: Served, log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command of Prefect's while the block runs."""
    arguments = [sys.executable, "-m", "prefect", *command]
    with log.open("w") as stream, subprocess.Popen(arguments, cwd=served.folder, env=served.environment, stdout=stream, stderr=subprocess.STDOUT) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
