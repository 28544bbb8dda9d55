"""`bonsai serve` and `prefect deployment run` for real: a server, a runner, and the command line of Prefect in processes of their own."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TINY: Mapping[str, Any] = {
    "model.name": "resnet8",
    "data.options": {"size": 16},
    "training.epochs": 2,
    "training.threads": 1,
    "training.checks_per_epoch": 1,
    "prune.rounds": 2,
    "quantize.epochs": 2,
    "export.min_agreement": 0.8,
    "timing.runs": 200,
    "timing.warmup_runs": 20,
    "timing.warmup_seconds": 0.05,
    "profile.budget.latency": 0.9,
    "profile.gates.max_accuracy_drop": 1.0,
}
READY_SECONDS, RUN_SECONDS = 120, 240


@dataclass
class Served:
    """A `bonsai serve` in progress."""

    folder: Path
    environment: dict[str, str]

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def prefect(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of Prefect's command line, as in a second shell."""
        return subprocess.run(
            [sys.executable, "-m", "prefect", *arguments],
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


@dataclass
class Watched:
    """What `prefect deployment run --watch` left."""

    returncode: int
    output: str
    run_id: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "home").mkdir()
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "BONSAI_"))}
    # One thread, because two that wait for each other take ten times as long where other work shares their cores.
    own |= {
        "HOME": str(folder / "home"),
        "BONSAI_PORT": str(free_port()),
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "1000",
        "DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": "1",
    }
    log = folder / "serve.log"
    with log.open("w") as stream, subprocess.Popen([*serve_command(folder)], cwd=folder, env=own, stdout=stream, stderr=subprocess.STDOUT) as process:
        try:
            wait_until_ready(process, log)
            second_shell = {"PREFECT_API_URL": f"http://127.0.0.1:{own['BONSAI_PORT']}/api", "PREFECT_HOME": str(folder / "store" / ".prefect")}
            yield Served(folder, {**own, **second_shell, "NO_PROXY": "127.0.0.1"})
        finally:
            process.terminate()
            try:
                assert process.wait(60) == 0, log.read_text()
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    assert "Traceback" not in log.read_text()


@pytest.fixture(scope="module")
def completed(served: Served) -> Watched:
    return watch(served, TINY)


def serve_command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "pipeline.cli", "serve", "--store", str(folder / "store")]


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


def watch(served: Served, overrides: Mapping[str, Any]) -> Watched:
    arguments = ("--watch", "--watch-timeout", str(RUN_SECONDS), "--param", f"overrides={json.dumps(overrides)}")
    done = served.prefect("deployment", "run", "compress/resnet-edge", *arguments)
    run_id = done.stdout.partition("UUID: ")[2].split()
    assert run_id, done.stdout + done.stderr
    return Watched(done.returncode, done.stdout, run_id[0])


def test_a_run_completes_and_its_package_lies_in_the_store(served: Served, completed: Watched) -> None:
    assert completed.returncode == 0, completed.output
    run = served.prefect_json("flow-run", "inspect", completed.run_id)
    assert run["state"]["type"] == "COMPLETED"
    assert run["name"] == "resnet-edge on local-cpu"
    package = served.store / "packages" / "resnet-edge--local-cpu"
    assert {file.name for file in package.iterdir()} == {
        "MODEL_CARD.md",
        "SHA256SUMS",
        "report.html",
        "report.md",
        "training.svg",
        "engine.onnx",
        "golden.safetensors",
        "manifest.json",
        "model.onnx",
    }


def test_bonsais_progress_is_in_the_runs_log_and_on_the_watchers_screen(served: Served, completed: Watched) -> None:
    messages = [line["message"] for line in served.prefect_json("flow-run", "logs", completed.run_id)]
    for progress in ("local-cpu: dense FP32 ", "local-cpu: branches off at epoch ", "qat     step "):
        assert any(message.startswith(progress) for message in messages), messages
        assert progress in completed.output


def test_every_stage_is_a_task_of_its_name(served: Served, completed: Watched) -> None:
    tasks = [task for task in served.prefect_json("task-run", "ls", "--limit", "200") if task["flow_run_id"] == completed.run_id]
    assert {task["state"]["type"] for task in tasks} == {"COMPLETED"}
    assert {task["name"].rpartition("-")[0] for task in tasks} == {
        "prepare",
        "characterize",
        "sketch",
        "compile",
        "race",
        "warmup",
        "prune",
        "recover",
        "quantize",
        "export",
        "measure",
        "package",
    }


def test_the_model_card_and_the_table_are_artifacts_of_the_run(served: Served, completed: Watched) -> None:
    (card,) = served.prefect_json("artifact", "inspect", "resnet-edge-local-cpu")
    assert card["data"] == (served.store / "packages" / "resnet-edge--local-cpu" / "MODEL_CARD.md").read_text()
    (table,) = served.prefect_json("artifact", "inspect", "resnet-edge-local-cpu-rows")
    dense, ptq, *qat, pruned, engine = [row["network"] for row in json.loads(table["data"])]
    assert (dense, ptq, pruned, engine) == ("dense fp32", "simulated int8 PTQ", "pruned fp32", "pruned int8 (shipped)")
    assert qat in ([], ["simulated int8 QAT"])  # where calibration costs too much on this machine


def test_a_missed_gate_fails_the_run_with_the_gate_in_its_message(served: Served, completed: Watched) -> None:
    missed = watch(served, {**TINY, "profile.gates.max_size_mb": 0.0001})
    assert missed.returncode == 1
    state = served.prefect_json("flow-run", "inspect", missed.run_id)["state"]
    assert state["type"] == "FAILED"
    assert state["message"].startswith("resnet-edge--local-cpu: size: ")
    assert state["message"].endswith(" MB, limit 0.0001: MISSED")
    assert "Traceback" not in missed.output


def test_a_wrong_override_fails_the_run_with_bonsais_message(served: Served) -> None:
    wrong = watch(served, {"training.epoch": 2})
    assert wrong.returncode == 1
    message = served.prefect_json("flow-run", "inspect", wrong.run_id)["state"]["message"]
    assert message.startswith("--set training.epoch: unknown key 'training.epoch' (did you mean 'epochs'?)")
    assert "Traceback" not in wrong.output


def test_an_unknown_parameter_is_refused_at_once(served: Served) -> None:
    refused = served.prefect("deployment", "run", "compress/resnet-edge", "--param", "out=/etc")
    assert refused.returncode == 1
    assert "not found on the deployment: 'out'" in refused.stdout


def test_a_run_whose_process_is_gone_is_marked_as_crashed(served: Served) -> None:
    code = """
import sys
from pathlib import Path
from prefect.client.orchestration import get_client
from prefect.states import Running
from pipeline.serve import crash_lost_runs
from pipeline.local_server import run_lock
from stages.locks import hold

store = Path(sys.argv[1])
with get_client(sync_client=True) as client:
    deployment = client.read_deployment_by_name("compress/resnet-edge")
    start = lambda name: str(client.create_flow_run_from_deployment(deployment.id, state=Running(), name=name).id)
    lost, alive, elsewhere = start("lost"), start("alive"), start("elsewhere")
    run_lock(store, lost).touch()
    with hold(run_lock(store, alive)):
        print(crash_lost_runs(store, new_server=False))
        print([client.read_flow_run(run).state.type.value for run in (lost, alive, elsewhere)], run_lock(store, lost).exists())
    print(sorted(crash_lost_runs(store, new_server=True)))
"""
    done = subprocess.run([sys.executable, "-c", code, served.store], env=served.environment, cwd=served.folder, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["['lost']", "['CRASHED', 'RUNNING', 'RUNNING'] False", "['alive', 'elsewhere']"], done.stderr


def test_a_second_serve_on_the_same_store_is_refused(served: Served) -> None:
    environment = {name: value for name, value in served.environment.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(serve_command(served.folder), env=environment, cwd=served.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "another `bonsai serve` uses this store" in done.stderr


def test_nothing_is_left_outside_the_store(served: Served, completed: Watched) -> None:
    assert list((served.folder / "home").rglob("*")) == []
    assert sorted(file.name for file in served.folder.iterdir()) == ["home", "serve.log", "store"]
