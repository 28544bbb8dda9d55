"""A device behind a real sshd, in an environment without torch, 50 ms away."""

import fcntl
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from far_device import Far, far_device
from light_environment import ROOT, link
from planted import Case, plant
from quantised_package import make_quantised_package
from tiny_package import SHAPE, make_package, reseal, write_graph

from bonsai.profiles.loader import load_profile
from bonsai.profiles.operator_class import OperatorClass
from bonsai.profiles.schema import Target
from bonsai.stages.backends.device import OperatorPoint, TimingProtocol
from bonsai.stages.backends.devices import device_of
from bonsai.stages.backends.engine import EngineFile
from bonsai.stages.backends.local_device import local
from bonsai.stages.backends.remote.refusals import Unreachable
from bonsai.stages.backends.remote.remote_device import RemoteDevice
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.delivery.release import read_release
from bonsai.stages.errors import BuildError, DeviceUnavailable, VerificationError
from bonsai.stages.explanation.explaining import explain
from bonsai.stages.measurement.timing_lock import VARIABLE
from bonsai.stages.store.artifact import sha256_file

pytestmark = pytest.mark.slow

HERE = load_profile("local-cpu", {"target.precision": "fp32"}).target
FEW = TimingConfig(runs=60, block=10, warmup_runs=5, warmup_seconds=0)
ONCE = TimingProtocol(timing=FEW, clock="wall", percentile=50, once=True)
POINTS = [OperatorPoint(OperatorClass(op="conv", kernel=(3, 3), height=16, width=16, epilogue="relu"), ci, 16) for ci in (16, 32, 48, 64, 80)]
IMAGES = np.random.default_rng(0).standard_normal((40, *SHAPE)).astype(np.float32)


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    with far_device(tmp_path_factory.mktemp("far")) as far:
        yield far


@pytest.fixture
def device(far: Far) -> Iterator[RemoteDevice]:
    device = RemoteDevice(far.address, str(far.python))
    yield device
    device.close()


def built(device: RemoteDevice, target: Target, folder: Path) -> EngineFile:
    write_graph(folder / "model.onnx")
    return EngineFile(file=folder / device.build(folder / "model.onnx", folder, target, SHAPE).file, target=target)


def test_the_device_of_a_target_with_an_address_is_there(far: Far) -> None:
    device = device_of(far.target)
    assert isinstance(device, RemoteDevice)
    assert device is device_of(far.target)
    assert not isinstance(device_of(HERE), RemoteDevice)


def test_it_describes_itself_as_it_would_at_home(far: Far, device: RemoteDevice) -> None:
    assert device.describe(far.target) == local.describe(HERE)
    named = load_profile("x86-avx2", far.overrides("target.")).target
    assert device.describe(named).device == local.describe(HERE).device
    assert device.describe(named).present
    assert device.machine() == local.machine()


def test_another_machine_than_the_profile_s_is_refused(far: Far, device: RemoteDevice) -> None:
    with pytest.raises(DeviceUnavailable, match=r"not the profile's device[\s\S]*Cortex-A76 \(Raspberry Pi 5\) lacks asimd, asimddp"):
        device.describe(load_profile("cortex-a76", far.overrides("target.")).target)


def test_an_engine_that_is_built_there_gives_what_one_that_is_built_here_does(far: Far, device: RemoteDevice, tmp_path: Path) -> None:
    engine = built(device, far.target, tmp_path)
    (tmp_path / "here").mkdir()
    write_graph(tmp_path / "here" / "model.onnx")
    here = EngineFile(file=tmp_path / "here" / local.build(tmp_path / "here" / "model.onnx", tmp_path / "here", HERE, SHAPE).file, target=HERE)
    assert engine.file.read_bytes() == here.file.read_bytes()
    batches = [image[None] for image in IMAGES]
    expected = list(local.run(here, batches))
    for untried in (False, True):
        assert all(map(np.array_equal, device.run(engine, batches, untried=untried), expected))
    assert np.array_equal(device.open(engine)(IMAGES), np.concatenate(expected))


def test_engines_are_timed_there_and_operators_one_by_one(far: Far, device: RemoteDevice, tmp_path: Path) -> None:
    engine = built(device, far.target, tmp_path)
    with device.hold():
        found = device.time({"dense": engine, "pruned": engine}, dict.fromkeys(("dense", "pruned"), IMAGES[:1]), ONCE)
        assert {name: samples.shape for name, samples in found.samples.items()} == {"dense": (2, 60), "pruned": (2, 60)}
        assert all((samples > 0).all() for samples in found.samples.values())
        measured = list(device.operators(POINTS[:2], far.target))
    assert [(one.entry.operator, one.entry.ci, one.entry.co) for one in measured] == [tuple(point) for point in POINTS[:2]]
    assert all(one.entry.p50_us > 0 and one.contention for one in measured)
    shares = device.kernels(engine, IMAGES[:1])
    assert sum(kernel.share for kernel in shares) == pytest.approx(1)


def test_a_package_is_explained_by_its_engine_there(far: Far, tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    planted = plant(make_quantised_package(package), Case("bias", "engine"), np.random.default_rng(0))
    found = explain(package, tmp_path, there=far.target)
    assert [(finding.layer, finding.kind, finding.place) for finding in found.findings] == [tuple(planted)]
    assert all(layer.engine is not None and layer.engine_us for layer in found.layers)


def test_the_device_has_no_torch(far: Far) -> None:
    code = "import importlib.util as u, bonsai; print(u.find_spec('torch'), u.find_spec('prefect'), u.find_spec('onnxruntime') is None)"
    done = subprocess.run([far.python, "-c", code], capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]})
    assert done.stdout.split() == ["None", "None", "False"]


def test_what_a_login_script_prints_is_no_answer(far: Far, device: RemoteDevice) -> None:
    script = far.server.home / ".bashrc"
    script.write_text("echo Welcome to this board\n")
    try:
        shown = subprocess.run([*shlex.split(far.server.ssh), far.address, "true"], capture_output=True, text=True, check=True).stdout
        assert device.describe(far.target).present
    finally:
        script.unlink()
    assert shown.startswith("Welcome to this board")


def test_what_the_device_refuses_is_told_with_its_words(far: Far, device: RemoteDevice, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(BuildError, match=rf"on {far.address}: ONNX Runtime cannot build model.onnx"):
        device.build(tmp_path / "model.onnx", tmp_path, far.target, SHAPE)
    old = far.target.model_copy(update={"runtime_version": "<1"})
    with pytest.raises(DeviceUnavailable, match=rf"on {far.address}: runtime 'onnxruntime' has a version that the profile does not allow"):
        device.describe(old)


def test_an_engine_that_was_changed_on_the_device_is_not_run_but_sent_again(far: Far, device: RemoteDevice, tmp_path: Path) -> None:
    engine = built(device, far.target, tmp_path)
    expected = list(device.run(engine, [IMAGES]))
    device.close()
    (there,) = far.server.cache.rglob(f"{sha256_file(engine.file)}/{engine.file.name}")
    there.write_bytes(there.read_bytes()[:-1] + b"!")
    assert np.array_equal(next(device.run(engine, [IMAGES])), expected[0])
    assert there.read_bytes() == engine.file.read_bytes()


def test_a_package_is_verified_and_timed_there(far: Far, device: RemoteDevice, tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    package = make_package(tmp_path / "package")
    assert "gives the golden outputs of 3 images" in device.verify(package)[-1]
    few = {"runs": 60, "block": 10, "warmup_runs": 5, "warmup_seconds": 0, "verdict": {"most": 3}}
    budget = {"latency": None, "latency_ms": 1000.0, "percentile": 50}
    reseal(package, lambda facts: facts.update(recipe={**facts["recipe"], "timing": few}, profile={**facts["profile"], "budget": budget}))
    (tmp_path / "far.yaml").write_text(
        yaml.safe_dump({"extends": "local-cpu", "name": "far", "target": {"device": {"address": far.address, "python": str(far.python)}}})
    )
    command = [sys.executable, "-m", "bonsai", "verify", package, "--profile", tmp_path / "far.yaml", "--time"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "gives the golden outputs of 3 images" in done.stdout
    assert "ms p50 here" in done.stdout
    assert [line for line in (far.server.folder / "sshd.log").read_text().splitlines() if "Accepted publickey" in line]
    (package / "model.onnx").write_bytes(b"changed")
    with pytest.raises(VerificationError, match=r"model\.onnx"):
        device.verify(package)
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 6
    local_only = subprocess.run([*command[:5], "--profile", "local-cpu"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (local_only.returncode, "its device has no address" in local_only.stderr) == (2, True)


def test_an_earlier_package_is_run_on_the_device_of_the_new_one(far: Far, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "package").mkdir()
    package = make_package(tmp_path / "package")
    profile = load_profile("local-cpu", {**far.overrides("target."), "target.precision": "fp32"})
    for verb in ("verify", "run", "open"):
        monkeypatch.delattr(type(local), verb)
    release = read_release(package, [profile])
    assert release.absence == ""
    assert release.engine.target.device.address == far.address
    (outputs,) = device_of(release.engine.target).run(release.engine, [IMAGES[:1]])
    assert outputs.shape == (1, 3)


def test_a_timing_elsewhere_on_the_device_is_waited_for(far: Far, device: RemoteDevice, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hold = "import sys\nfrom bonsai.stages.measurement.timing_lock import hold_timing\nwith hold_timing(): print(flush=True); sys.stdin.read()"
    environment = {**os.environ, VARIABLE: str(far.server.lock)}
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as other:
        assert other.stdin is not None and other.stdout is not None
        other.stdout.readline()
        device.describe(far.target)
        threading.Timer(1.0, other.stdin.close).start()
        started = time.monotonic()
        with device.hold():
            assert time.monotonic() - started > 0.8
    assert f"{far.address}: timing waits: another one is under way on this machine" in caplog.text


def lose_connection(far: Far) -> None:
    far.proxy.drop()


def lose_server(far: Far) -> None:
    far.server.stop()
    far.server.start()


def lose_agent(far: Far) -> None:
    for agent in far.server.agents():
        os.kill(agent, 9)


@pytest.mark.long
def test_a_pulled_cable_is_noticed_at_both_ends(far: Far, device: RemoteDevice) -> None:
    others = set(far.server.agents())
    with device.hold():
        (agent,) = set(far.server.agents()) - others
        far.proxy.swallow()
        assert device.describe(far.target).present  # over another connection, whose agent waits for the lock that the first one holds
        assert agent not in far.server.agents()
        assert held(far)
    assert not held(far)


@pytest.mark.parametrize("lose", [lose_connection, lose_server, lose_agent])
def test_no_loss_loses_what_was_measured(lose: Callable[[Far], None], far: Far, device: RemoteDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BONSAI_DEVICE_WAIT", "60")
    quiet = built(device, far.target, tmp_path)
    expected = list(device.run(quiet, [IMAGES]))
    (tmp_path / "again").mkdir()

    def in_a_moment(seconds: float) -> threading.Timer:
        timer = threading.Timer(seconds, lose, [far])
        timer.start()
        return timer

    lose(far)  # between two requests
    engine = built(device, far.target, tmp_path / "again")
    assert engine.file.read_bytes() == quiet.file.read_bytes()
    loss = in_a_moment(0.3)  # while engines are timed
    long = ONCE.model_copy(update={"timing": FEW.model_copy(update={"warmup_seconds": 1.0})})
    with device.hold():
        found = device.time({"engine": engine}, {"engine": IMAGES[:1]}, long)
        loss.join()
        assert held(far)
    assert not held(far)
    assert found.samples["engine"].shape == (2, 60)
    seen = []
    for measured in device.operators(POINTS, far.target):  # while operators are timed
        if len(seen) == 1:
            lose(far)
        seen.append((measured.entry.operator, measured.entry.ci, measured.entry.co))
    assert seen == [tuple(point) for point in POINTS]
    loss = in_a_moment(0.05)  # while images are run
    found_outputs = [next(device.run(engine, [IMAGES])) for _ in range(3)]
    loss.join()
    assert all(np.array_equal(outputs, expected[0]) for outputs in found_outputs)


def held(far: Far) -> bool:
    """Return whether the device's lock is held: by an agent that was not lost."""
    for _ in range(20):
        with far.server.lock.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        time.sleep(0.05)
    return False


def test_a_transfer_that_is_cut_off_goes_on_where_it_was(far: Far, device: RemoteDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BONSAI_DEVICE_WAIT", "60")
    write_graph(tmp_path / "model.onnx")
    with (tmp_path / "model.onnx").open("ab") as graph:  # a field that readers of ONNX skip: the file is 12 MB
        graph.write(b"\xc2\x3e" + varint(12_000_000) + os.urandom(12_000_000))
    device.describe(far.target)
    began, dropped = far.proxy.passed, []

    def drop_once(passed: int) -> None:
        if passed - began > 6_000_000 and not dropped:
            dropped.append(passed)
            far.proxy.drop()

    far.proxy.on_bytes = drop_once
    try:
        made = device.build(tmp_path / "model.onnx", tmp_path, far.target, SHAPE)
    finally:
        far.proxy.on_bytes = lambda _: None
    assert dropped
    assert made.file == "engine.onnx"
    assert far.proxy.passed - began < 15_000_000  # twice the file would be 24 MB


def varint(number: int) -> bytes:
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def test_a_device_that_does_not_come_back_ends_the_run_with_what_to_do(far: Far, device: RemoteDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BONSAI_DEVICE_WAIT", "2")
    monkeypatch.setattr(sys, "argv", ["/usr/bin/bonsai", "run", "tiny", "--profile", "kitchen pi.yaml"])
    device.describe(far.target)
    far.proxy.refuses = True
    far.proxy.drop()
    try:
        with pytest.raises(DeviceUnavailable, match=r"did not come back[\s\S]*then go on: `bonsai run tiny --profile 'kitchen pi.yaml'`") as raised:
            device.describe(far.target)
    finally:
        far.proxy.refuses = False
    assert raised.value.exit_code == 5
    assert device.describe(far.target).present  # later it may be asked again


def test_a_request_that_ends_the_agent_each_time_is_given_up(far: Far, device: RemoteDevice) -> None:
    stop = threading.Event()

    def kill() -> None:
        while not stop.wait(0.02):
            lose_agent(far)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(DeviceUnavailable, match=r"the connection was lost 5 times during one request|does not answer|did not come back"):
            list(device.operators(POINTS * 20, far.target))
    finally:
        stop.set()
        killer.join()


@pytest.mark.parametrize(
    ("python", "says"),
    [("/nowhere/bin/python", "there is no such Python on the device"), (sys.base_prefix + "/bin/python3", "is not installed there")],
)
def test_a_python_without_bonsai_is_told(python: str, says: str, far: Far) -> None:
    with pytest.raises(Unreachable, match=rf"{far.address}: [\s\S]*{says}[\s\S]*bonsai device setup {far.address}"):
        RemoteDevice(far.address, python).describe(far.target)


def test_another_version_of_bonsai_there_is_refused(far: Far, tmp_path: Path) -> None:
    python = link(tmp_path / "environment")
    site = next((tmp_path / "environment").glob("lib/python3*/site-packages"))
    (site / "bonsai").unlink()
    (site / "bonsai").mkdir()
    (site / "bonsai" / "__init__.py").touch()
    for room in ("profiles", "stages", "pipeline"):
        subprocess.run(["cp", "-r", ROOT / room, site / "bonsai" / room], check=True)
    with (site / "bonsai" / "stages" / "hashing.py").open("a") as file:
        file.write("# changed\n")
    with pytest.raises(Unreachable, match=r"Bonsai on the device is not the one that runs here[\s\S]*bonsai device setup"):
        RemoteDevice(far.address, str(python)).describe(far.target)


def test_an_unknown_host_key_is_not_accepted(far: Far) -> None:
    known = far.server.folder / "known_hosts"
    before = known.read_text()
    try:
        known.write_text("")
        with pytest.raises(Unreachable, match="ssh does not know the device's host key"):
            RemoteDevice(far.address, str(far.python)).describe(far.target)
        other = " ".join((far.server.folder / "login_key.pub").read_text().split()[:2])
        known.write_text(f"[127.0.0.1]:{far.proxy.port} {other}\n")
        with pytest.raises(Unreachable, match="another host key"):
            RemoteDevice(far.address, str(far.python)).describe(far.target)
    finally:
        known.write_text(before)


def test_a_login_that_is_refused_is_told(far: Far) -> None:
    keys = far.server.folder / "login_key.pub"
    before = keys.read_text()
    try:
        keys.write_text("")
        with pytest.raises(Unreachable, match="lets nobody in with your keys; passwords are not asked for"):
            RemoteDevice(far.address, str(far.python)).describe(far.target)
    finally:
        keys.write_text(before)
