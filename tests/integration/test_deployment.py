"""`bonsai serve` and `prefect deployment run` for real: a server, a runner, and the command line of Prefect in processes of their own."""

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from served import TINY, Served, Watched, free_port, serve_command, serving, wait_for, watch

from bonsai.pipeline.service.local_server import run_lock
from bonsai.stages.store.locks import is_held
from bonsai.stages.store.manifest import MANIFEST
from bonsai.stages.store.store import RESUME
from bonsai.stages.training.resume import LAST, load_progress

pytestmark = pytest.mark.long  # a Prefect server and several runs over it

CONFIGS = Path(__file__).parent / "configs"
LONG: Mapping[str, Any] = {**TINY, "training.epochs": 32, "prune.epi": {"latest": 0.2}}
"""Leaves time to stop it in the middle of its training."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served")) as served:
        yield served


@pytest.fixture(scope="module")
def completed(served: Served) -> Watched:
    return watch(served, TINY)


@dataclass
class Cancelled:
    """A run that was cancelled while it trained, and what it left.

    Attributes:
        seconds: From the request until the flow let its lock go.
        finished: Artifacts of the store then, with the time of their manifest.
        step: Optimizer step of the last finished epoch.
        children: Processes of runs that were left.
    """

    run_id: str
    seconds: float
    finished: dict[Path, float]
    step: int
    children: list[int]


@pytest.fixture(scope="module")
def cancelled(served: Served, completed: Watched) -> Cancelled:
    run_id = served.start("compress/resnet-edge", {"overrides": LONG})
    wait_for(lambda: checkpoints(served.store), every=0.02)
    served.cancel(run_id)
    seconds = wait_for(lambda: not is_held(run_lock(served.store, run_id)), every=0.05)
    wait_for(lambda: served.state(run_id) == "CANCELLED")
    (checkpoint,) = checkpoints(served.store)
    progress = load_progress(checkpoint.parent)
    assert progress is not None
    return Cancelled(run_id, seconds, manifests(served.store), progress[1]["step"], served.children("prefect.engine"))


@pytest.fixture(scope="module")
def continued(served: Served, cancelled: Cancelled) -> str:
    """The same run again, whose server is killed while it trains."""
    run_id = served.start("compress/resnet-edge", {"overrides": LONG})
    before = checkpoints(served.store)[0].stat().st_mtime_ns
    wait_for(lambda: any(file.stat().st_mtime_ns != before for file in checkpoints(served.store)), every=0.02)
    (server,) = served.children("prefect server start")
    os.kill(server, signal.SIGKILL)
    wait_for(lambda: served.state(run_id) in ("COMPLETED", "FAILED", "CRASHED"))
    return run_id


def checkpoints(store: Path) -> list[Path]:
    return list(store.glob(f".work/*/{RESUME}/{LAST.format(sha256='*')}"))


def manifests(store: Path) -> dict[Path, float]:
    return {file: file.stat().st_mtime for file in store.glob(f"*/*/{MANIFEST}") if file.parent.parent.name != "packages"}


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
        "test_results.safetensors",
    }


def test_bonsais_progress_is_in_the_runs_log_and_on_the_watchers_screen(served: Served, completed: Watched) -> None:
    messages = [line["message"] for line in served.prefect_json("flow-run", "logs", completed.run_id)]
    for progress in ("local-cpu: dense FP32 ", "local-cpu: branches off at epoch ", "qat     step "):
        assert any(message.startswith(progress) for message in messages), messages
        assert progress in completed.output


def test_every_stage_is_a_task_of_its_name(served: Served, completed: Watched) -> None:
    tasks = [task for task in served.prefect_json("task-run", "ls", "--limit", "200") if task["flow_run_id"] == completed.run_id]
    assert {task["state"]["type"] for task in tasks} == {"COMPLETED"}
    made = {folder.name for folder in served.store.iterdir() if not folder.name.startswith(".")} - {"moments", "packages"}
    assert {"prepare", "train_dense", "package"} < made
    assert {task["name"].rpartition("-")[0] for task in tasks} == made


def test_the_model_card_and_the_table_are_artifacts_of_the_run(served: Served, completed: Watched) -> None:
    found = served.artifacts(completed.run_id)
    package = served.store / "packages" / "resnet-edge--local-cpu"
    card, table = found["resnet-edge-local-cpu"]["data"], json.loads(found["resnet-edge-local-cpu-rows"]["data"])
    assert card.startswith((package / "MODEL_CARD.md").read_text().partition("![EPI")[0])
    assert "](data:image/svg+xml;base64," in card
    assert card.endswith(f"    {package}\n")
    dense, ptq, *qat, pruned, engine = [row["network"] for row in table]
    assert (dense, ptq, pruned, engine) == ("dense fp32", "simulated int8 PTQ", "pruned fp32", "pruned int8 (shipped)")
    assert qat in ([], ["simulated int8 QAT"])  # where calibration costs too much on this machine


def test_the_links_of_a_run_lead_to_its_files(served: Served, completed: Watched) -> None:
    found, package = served.artifacts(completed.run_id), served.store / "packages" / "resnet-edge--local-cpu"
    image = found["resnet-edge-local-cpu-training"]["data"]
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(image, timeout=10) as reply:
        assert reply.read() == (package / "training.svg").read_bytes()
    folder = image.removesuffix("training.svg")
    assert found["resnet-edge-local-cpu-files"]["data"] == f"[Files of resnet-edge--local-cpu]({folder})"
    assert found["resnet-edge-local-cpu-report"]["data"] == f"[Report of resnet-edge--local-cpu]({folder}report.html)"


def test_long_steps_show_how_far_they_are(served: Served, completed: Watched) -> None:
    bars = {key: artifact for key, artifact in served.artifacts(completed.run_id).items() if artifact["type"] == "progress"}
    assert {"progress-characterize", "progress-trunk", "progress-branch"} <= set(bars)
    assert {float(bar["data"]) for bar in bars.values()} == {100.0}
    assert bars["progress-trunk"]["description"].startswith("100 %: epoch 2, loss ")
    assert bars["progress-trunk"]["description"].endswith(", step 36 of 36")


def test_what_measures_latency_holds_the_one_place_of_the_limit(served: Served, completed: Watched) -> None:
    asked = {"event": {"name": ["prefect.concurrency-limit.acquired"]}, "order": "ASC"}

    def holders() -> list[str]:
        events = served.call("POST", "/events/filter", {"filter": asked, "limit": 50})["events"]
        mine = [event for event in events if event["resource"]["prefect.resource.name"] == "bonsai-timing"]
        return [part["prefect.resource.name"].rpartition("-")[0] for event in mine for part in event["related"] if part["prefect.resource.role"] == "task-run"]

    wait_for(lambda: "time_engine" in holders(), seconds=20)  # the server takes events in by and by
    assert set(holders()) == {"characterize", "benchmark", "measure", "time_engine"}
    (limit,) = served.call("POST", "/v2/concurrency_limits/filter", {})
    assert (limit["name"], limit["limit"], limit["active_slots"]) == ("bonsai-timing", 1, 0)


def test_timing_waits_for_the_place_and_goes_on_where_no_server_answers(served: Served) -> None:
    code = """
import threading
import time
from bonsai.pipeline.service.tasks import timing_slot
from prefect.client.orchestration import get_client

def second():
    with timing_slot():
        order.append("second")

order, thread = [], threading.Thread(target=second)
with timing_slot():
    try:
        with get_client(sync_client=True) as client:
            print(client.read_global_concurrency_limit_by_name("bonsai-timing").active_slots)
    except OSError:
        print("away")
    else:
        thread.start()
        time.sleep(2)
    order.append("first")
if thread.ident:
    thread.join()
print(order)
"""
    done = served.python("-c", code)
    assert done.stdout.splitlines() == ["1", "['first', 'second']"], done.stderr
    away = {**served.environment, "PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api"}
    alone = Served(served.folder, away, served.pid).python("-c", code.replace("OSError", "Exception"))
    assert alone.stdout.splitlines() == ["away", "['first']"], alone.stderr


def test_a_missed_gate_fails_the_run_with_the_gate_in_its_message(served: Served, completed: Watched) -> None:
    missed = watch(served, {**TINY, "profile.gates.min_metric": 0.9999})
    assert missed.returncode == 1
    state = served.prefect_json("flow-run", "inspect", missed.run_id)["state"]
    assert state["type"] == "FAILED"
    assert state["message"].startswith("resnet-edge--local-cpu: accuracy: ")
    assert "limit 0.9999: MISSED" in state["message"]
    assert "Traceback" not in missed.output


def test_a_wrong_override_fails_the_run_with_bonsais_message(served: Served) -> None:
    wrong = watch(served, {"training.epoch": 2})
    assert wrong.returncode == 1
    message = served.prefect_json("flow-run", "inspect", wrong.run_id)["state"]["message"]
    assert message.startswith("--set training.epoch: unknown key 'training.epoch' (did you mean 'epochs'?)")
    assert "Traceback" not in wrong.output


def test_an_override_that_names_code_is_refused(served: Served) -> None:
    kind, message = served.outcome(served.start("compress/resnet-edge", {"overrides": {"model.name": "os:getcwd"}}))
    assert kind == "FAILED"
    assert message.startswith("--set model.name: an override may not name code here\n  given:   os:getcwd, BONSAI_IMPORTS=recipes")


def test_a_comparison_sets_profiles_side_by_side_and_fails_where_one_does(served: Served, completed: Watched) -> None:
    run_id = served.start("compare/resnet-edge", {"profiles": ["local-cpu", str(CONFIGS / "tiny-away.yaml")], "overrides": TINY})
    wait_for(lambda: served.state(run_id) in ("COMPLETED", "FAILED", "CRASHED"))
    run, found = served.call("GET", f"/flow_runs/{run_id}"), served.artifacts(run_id)
    assert run["name"] == "resnet-edge on local-cpu, tiny-away"
    assert (run["state"]["type"], run["state"]["message"]) == ("FAILED", "1 of 2 profiles failed: tiny-away (code 5)")
    table = json.loads(found["resnet-edge-compared"]["data"])
    assert [(row["profile"], row["gates"]) for row in table] == [("local-cpu", "3 met"), ("tiny-away", "FAILED, code 5")]
    assert "## tiny-away failed" in found["resnet-edge-comparison"]["data"]
    assert found["resnet-edge-local-cpu"]["data"].startswith("# resnet-edge--local-cpu")


def test_an_unknown_parameter_is_refused_at_once(served: Served) -> None:
    refused = served.prefect("deployment", "run", "compress/resnet-edge", "--param", "out=/etc")
    assert refused.returncode == 1
    assert "not found on the deployment: 'out'" in refused.stdout


@pytest.mark.parametrize(("name", "value"), [("profile", "local-cpux"), ("recipe", "resnet"), ("budget", 2)])
def test_a_typo_is_refused_at_once(served: Served, name: str, value: object) -> None:
    with pytest.raises(urllib.error.HTTPError, match="409"):
        served.start("compress/resnet-edge", {name: value})


def test_a_run_whose_process_is_gone_is_marked_as_crashed(served: Served) -> None:
    code = """
import sys
from pathlib import Path
from prefect.client.orchestration import get_client
from prefect.states import Running
from bonsai.pipeline.service.serve import crash_lost_runs
from bonsai.pipeline.service.local_server import run_lock
from bonsai.stages.store.locks import hold

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
    done = served.python("-c", code, str(served.store))
    assert done.stdout.splitlines() == ["['lost']", "['CRASHED', 'RUNNING', 'RUNNING'] False", "['alive', 'elsewhere']"], done.stderr


def test_a_second_serve_on_the_same_store_is_refused(served: Served) -> None:
    environment = {name: value for name, value in served.environment.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(serve_command(served.folder), env=environment, cwd=served.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "another `bonsai serve` uses this store" in done.stderr


def test_cancel_stops_the_training_within_seconds_and_ends_its_process(served: Served, cancelled: Cancelled) -> None:
    assert cancelled.seconds < 15
    assert cancelled.children == []


@pytest.mark.slow
def test_a_cancelled_run_goes_on_from_its_last_finished_epoch(served: Served, cancelled: Cancelled, continued: str) -> None:
    assert served.state(continued) == "COMPLETED"
    steps, epochs = [message.split()[2] for message in served.messages(continued) if message.startswith("trunk ")], LONG["training.epochs"]
    first, total = (int(number) for number in steps[0].split("/"))
    assert cancelled.step < first <= cancelled.step + total // epochs
    assert {file: file.stat().st_mtime for file in cancelled.finished} == cancelled.finished


@pytest.mark.slow
def test_a_server_that_is_killed_in_the_middle_is_started_again_and_the_run_completes(served: Served, continued: str) -> None:
    assert "The local Prefect server ended with code -9 and is started again" in served.log
    assert served.state(continued) == "COMPLETED"
    assert "resnet-edge-local-cpu" in served.artifacts(continued)


def test_nothing_is_left_outside_the_store(served: Served, completed: Watched) -> None:
    assert list((served.folder / "home").rglob("*")) == []
    assert sorted(file.name for file in served.folder.iterdir()) == ["home", "serve.log", "store"]
