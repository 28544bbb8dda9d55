"""Two workers on two work pools of one server: a trainer that reaches a device over ssh, and a device that has a worker of its own."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from light_environment import link
from pages import ROOT, blocks_of
from served import TINY, Served, wait_for
from ssh_server import SshServer
from working import running, working

from bonsai.stages.delivery.contents import read_intact

pytestmark = pytest.mark.long  # a Prefect server, two workers, a server of ssh

PAGE = ROOT / "docs" / "prefect.md"
POOL = "kitchen-pi"
PATIENCE = 1800.0
"""Seconds in which both runs end, on a machine that does other work too."""


class Pools(NamedTuple):
    """Both workers.

    Attributes:
        trainer: The worker of the pool `bonsai`.
        device: The worker of the other pool, with a store and a lock of its own.
        ssh: The server of the device that the trainer reaches.
        profile: File of the profile with its address.
    """

    trainer: Served
    device: Served
    ssh: SshServer
    profile: Path


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pools]:
    folder = tmp_path_factory.mktemp("pools")
    for name in ("ssh", "trainer", "device"):
        (folder / name).mkdir()
    python = link(folder / "environment")
    with SshServer(folder / "ssh") as ssh, working(folder / "trainer", BONSAI_SSH=ssh.ssh, BONSAI_TIMING_LOCK=str(folder / "trainer.lock")) as trainer:
        profile = folder / "far.yaml"
        profile.write_text(f'extends: local-cpu\nname: far\ntarget: {{device: {{address: "{ssh.address}", python: "{python}"}}}}\n')
        (block,) = [block for block in blocks_of(PAGE) if "test_two_pools" in (block.not_run or "")]
        (folder / "device" / "prefect.yaml").write_text((ROOT / "prefect.yaml").read_text())
        own = {"BONSAI_STORE": str(folder / "device" / "store"), "BONSAI_TIMING_LOCK": str(folder / "device.lock")}
        device = Served(folder / "device", {**trainer.environment, **own, "PATH": f"{Path(sys.executable).parent}:{trainer.environment['PATH']}"}, trainer.pid)
        assert trainer.prefect("gcl", "create", "bonsai-timing", "--limit", "1").returncode == 0
        done = subprocess.run(["bash", "-eux", "-c", block.text], cwd=device.folder, env=device.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        with running(device, device.folder / "worker.log", "worker", "start", "--pool", POOL, "--limit", "1"):
            yield Pools(trainer, device, ssh, profile)


@pytest.fixture(scope="module")
def ended(pools: Pools) -> dict[str, tuple[str, str, str]]:
    """State, message and id of a run of each pool, which were at work side by side."""
    runs = {
        "trainer": pools.trainer.start("compress/resnet-edge", {"profile": str(pools.profile), "overrides": TINY}),
        "device": pools.trainer.start(f"compress/resnet-edge--{POOL}", {"profile": "local-cpu", "overrides": TINY}),
    }
    wait_for(lambda: all(pools.trainer.state(run) in ("COMPLETED", "FAILED", "CRASHED") for run in runs.values()), seconds=PATIENCE)
    return {name: (*pools.trainer.outcome(run), run) for name, run in runs.items()}


def test_the_trainers_run_is_measured_on_the_device_that_it_reaches(pools: Pools, ended: dict[str, tuple[str, str, str]]) -> None:
    assert ended["trainer"][0] == "COMPLETED", ended["trainer"][1]
    package = pools.trainer.store / "packages" / "resnet-edge--far"
    manifest = read_intact(package)
    shipped = next(row for row in manifest.metrics if row.shipped)
    assert shipped.latency is not None
    assert shipped.latency.source == "measured"
    engine = (package / manifest.engine.file).read_bytes()
    assert any(file.is_file() and file.read_bytes() == engine for file in pools.ssh.cache.rglob("*"))  # it was run there


def test_the_devices_run_is_measured_by_its_own_worker(pools: Pools, ended: dict[str, tuple[str, str, str]]) -> None:
    assert ended["device"][0] == "COMPLETED", ended["device"][1]
    assert (pools.device.store / "packages" / "resnet-edge--local-cpu" / "engine.onnx").is_file()
    assert not (pools.trainer.store / "packages" / "resnet-edge--local-cpu").exists()


def test_timings_on_a_device_with_an_address_take_no_place_of_the_limit(pools: Pools, ended: dict[str, tuple[str, str, str]]) -> None:
    asked = {"event": {"name": ["prefect.concurrency-limit.acquired"]}, "order": "ASC"}

    def holders() -> set[str]:
        events = pools.trainer.call("POST", "/events/filter", {"filter": asked, "limit": 50})["events"]
        return {part["prefect.resource.id"] for event in events for part in event["related"] if part["prefect.resource.role"] == "flow-run"}

    wait_for(holders, seconds=60)  # the server takes events in by and by
    assert holders() == {f"prefect.flow-run.{ended['device'][2]}"}
    locks = {name: (pools.ssh.folder.parent / f"{name}.lock").exists() for name in ("trainer", "device")}
    assert locks == {"trainer": False, "device": True}
    assert pools.ssh.lock.exists()
