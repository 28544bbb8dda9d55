"""Engines timed in processes of their own: real processes, a real engine, a lock of the machine."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_package import reseal, write_graph

from bonsai.profiles.loader import load_profile
from bonsai.stages.backends.device import TimingProtocol
from bonsai.stages.backends.engine import EngineFile
from bonsai.stages.backends.process_timing import time_in_process
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.delivery.packaged_timing import time_package
from bonsai.stages.errors import TimingFailed
from bonsai.stages.measurement import timing_lock
from bonsai.stages.measurement.timing_lock import inheritable

FEW = TimingConfig(runs=60, block=10, warmup_runs=5, warmup_seconds=0)
IMAGES = np.zeros((1, 1, 8, 8), np.float32)
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(timing_lock.VARIABLE, str(tmp_path / "timing.lock"))


def time_twice(engine: Path, timing: TimingConfig = FEW) -> dict[str, np.ndarray]:
    target = load_profile("local-cpu", {"target.precision": "fp32"}).target
    protocol = TimingProtocol(timing=timing, clock="wall", percentile=50, once=True)
    engines = dict.fromkeys(("engine", "reference"), EngineFile(file=engine, target=target))
    return time_in_process(engines, dict.fromkeys(engines, IMAGES), protocol, inheritable()).samples


def test_an_engine_alone_tells_its_start_and_its_memory_and_two_do_not(package: Path) -> None:
    target = load_profile("local-cpu", {"target.precision": "fp32"}).target
    protocol = TimingProtocol(timing=FEW, clock="wall", percentile=50, once=True)
    engine = EngineFile(file=package / "engine.onnx", target=target)
    started = time.monotonic()
    samples, turns, _, alone = time_in_process({"engine": engine}, {"engine": IMAGES}, protocol)
    took = time.monotonic() - started
    assert (samples["engine"].shape, turns) == ((2, 60), 6)
    assert alone is not None
    assert 0.02 < alone.start_s < took, "an interpreter and ONNX Runtime do not start within 20 ms"
    assert 0 < alone.load_s + alone.first_s < took
    assert alone.cold_s < took
    assert 0 < alone.warm_s < alone.cold_s
    assert alone.before_bytes is not None
    assert alone.peak_bytes is not None
    assert 20e6 < alone.before_bytes < alone.peak_bytes < 1e9
    assert time_in_process({"a": engine, "b": engine}, {"a": IMAGES, "b": IMAGES}, protocol).alone is None


def few_runs(package: Path, **budget: object) -> None:
    """Make the package's recipe time little, for another budget."""

    def edit(facts: dict[str, dict[str, object]]) -> None:
        facts["recipe"] = {**facts["recipe"], "timing": {"runs": 60, "block": 10, "warmup_runs": 5, "warmup_seconds": 0, "verdict": {"most": 3}}}
        facts["profile"]["budget"] = {"latency": None, "latency_ms": None, "percentile": 50, **budget}

    reseal(package, edit)


def bonsai(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "bonsai", *arguments], capture_output=True, text=True, check=False)


def test_engines_are_timed_in_a_process_of_its_own_and_leave_raw_samples(package: Path) -> None:
    samples = time_twice(package / "engine.onnx")
    assert {name: values.shape for name, values in samples.items()} == {"engine": (2, 60), "reference": (2, 60)}
    assert (samples["engine"] > 0).all()


def test_an_engine_that_does_not_load_is_named_with_the_runtimes_words(package: Path) -> None:
    (package / "engine.onnx").write_bytes(b"no graph")
    with pytest.raises(TimingFailed, match=r"engine\.onnx: cannot be timed, its process ended with code 3\n  given:   ONNX Runtime cannot load"):
        time_twice(package / "engine.onnx")


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="other CPUs divide the smallest integer by -1")
def test_an_engine_that_crashes_its_process_is_told_by_the_signal(package: Path) -> None:
    write_graph(package / "engine.onnx", divides=True)
    with pytest.raises(TimingFailed, match="its process was ended by SIGFPE"):
        time_twice(package / "engine.onnx")


def test_a_timing_process_ends_with_its_parent(package: Path) -> None:
    endless = TimingConfig(runs=10**7, seconds=600, warmup_runs=1, warmup_seconds=0)
    code = (
        "import sys\nsys.path.append('tests')\nfrom pathlib import Path\nfrom integration.test_process_timing import TimingConfig, time_twice\n"
        "from bonsai.stages.measurement.timing_lock import hold_timing\n"
        "with hold_timing(): time_twice(Path(sys.argv[1]), TimingConfig.model_validate_json(sys.argv[2]))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(package / "engine.onnx"), endless.model_dump_json()], cwd=ROOT)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    child = _wait_for(lambda: children.read_text().split())[0]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _wait_for(lambda: not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().rpartition(")")[2])


def _wait_for(condition: "object") -> list[str]:
    for _ in range(600):
        found = condition()  # type: ignore[operator]
        if found:
            return found  # type: ignore[no-any-return]
        time.sleep(0.05)
    raise AssertionError("it did not happen within 30 s")


def test_verify_times_the_engine_and_says_that_a_ratio_needs_the_dense_one(package: Path, tmp_path: Path) -> None:
    few_runs(package, latency=0.5)
    done = bonsai("verify", str(package), "--time", "--store", str(tmp_path / "none"))
    assert done.returncode == 0, done.stderr
    *_, latency, beside, verdict = done.stdout.splitlines()
    assert latency.startswith("latency: ")
    assert "ms p50 here, clock thread_cpu (95 % interval " in latency
    assert "times what the package says: 0.5 ms, measured for " in latency
    assert beside.startswith("cold start ")
    assert verdict.startswith("latency not judged: the limit is 0.5 of dense FP32 p50; a package does not hold the dense engine")


@pytest.mark.parametrize(("limit_ms", "code", "verdict"), [(1e4, 0, "met"), (1e-6, 3, "MISSED")])
def test_verify_judges_a_budget_in_milliseconds(package: Path, limit_ms: float, code: int, verdict: str) -> None:
    few_runs(package, latency_ms=limit_ms)
    done = bonsai("verify", str(package), "--time")
    assert done.returncode == code, done.stderr
    assert done.stdout.splitlines()[-1].endswith(f"limit {limit_ms:.4g}: {verdict} (95 % interval; 3 processes)")


def test_verify_judges_a_tail_by_the_wall(package: Path) -> None:
    few_runs(package, latency_ms=1e4, percentile=95)
    lines, (gate,) = time_package(package, package)
    assert "ms p95 here, by the wall" in lines[0]
    assert (gate.unit, gate.verdict) == ("ms p95", "met")


def test_a_package_for_another_device_is_not_timed(package: Path) -> None:
    reseal(package, lambda facts: facts["compatibility"].update(isa=["asimd"]))  # type: ignore[attr-defined]
    done = bonsai("verify", str(package), "--time")
    assert done.returncode == 6
    assert "latency" not in done.stdout


def test_timing_a_package_imports_neither_torch_nor_a_runtime() -> None:
    modules = (
        "bonsai.stages.delivery.packaged_timing, bonsai.stages.measurement.verdicts, bonsai.pipeline.cli.progress_lines, bonsai.pipeline.cli.commands.packages"
    )
    code = f"import sys, {modules}; print([name for name in ('torch', 'onnx', 'onnxruntime', 'tensorrt') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
