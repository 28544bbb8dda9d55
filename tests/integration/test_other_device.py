"""A whole run whose engines are built, timed and run in another process alone."""

from pathlib import Path

import pytest
from scripted_device import use
from toy_device import ENGINE, ToyDevice

from bonsai import compress
from bonsai.stages.backends.onnxruntime_engine import OnnxRuntimeBackend
from bonsai.stages.delivery.contents import read_intact

CONFIGS = Path(__file__).parent / "configs"
QUICK = {
    "training.epochs": 2,
    "timing": {"runs": 100, "block": 10, "warmup_runs": 10, "warmup_seconds": 0, "fitting": 2, "tries": 1, "verdict": {"most": 3}},
    "profile.target.precision": "fp32",
    "profile.gates": {"max_drop": 1},
}


@pytest.mark.slow
def test_a_run_needs_a_device_and_no_backend_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for verb in ("describe", "build", "open_engine", "open_profiled"):
        monkeypatch.delattr(OnnxRuntimeBackend, verb)
    with ToyDevice() as device:
        use(device, monkeypatch)
        (package,) = compress(str(CONFIGS / "tiny.yaml"), str(CONFIGS / "tiny-cpu.yaml"), QUICK, store=tmp_path)
    manifest = read_intact(tmp_path / "packages" / package.name)
    assert (manifest.engine.file, manifest.device.device) == (ENGINE, "a toy")
    shipped = package.rows[-1]
    assert (shipped.precision, shipped.accuracy.measured_by) == ("fp32", "engine")
    assert shipped.latency is not None
    assert shipped.latency.source == "measured"
    assert [kernel.op for kernel in manifest.kernels] == ["whole engine"]
    for verb in ("build model.onnx", "try", "run", "time", "profile"):
        assert any(told.startswith(verb) for told in device.told), verb
    assert any(told.endswith(" once") for told in device.told)
