import os
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest

from bonsai.profiles.errors import ConfigError
from bonsai.profiles.loader import load_profile
from bonsai.stages.backends.openvino_engine import backend
from bonsai.stages.backends.registry import check_target
from bonsai.stages.errors import BuildError, DeviceUnavailable

TARGET = load_profile("local-cpu-openvino").target


needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed: pip install 'bonsai-compress[openvino]'")


@needs_openvino
def test_a_broken_file_is_a_build_error(tmp_path: Path) -> None:
    broken = tmp_path / "model.onnx"
    broken.write_bytes(b"no graph")
    with pytest.raises(BuildError, match=r"OpenVINO cannot build model\.onnx: \S"):
        backend.build(broken, tmp_path / "engine.blob", TARGET, (1, 8, 8))
    assert not (tmp_path / "engine.blob").exists()
    with pytest.raises(BuildError, match=r"OpenVINO cannot load model\.onnx: \S"):
        backend.open_engine(broken, TARGET)


@needs_openvino
def test_an_import_sends_nothing_and_leaves_nothing_at_home(tmp_path: Path) -> None:
    code = "import sys; from bonsai.stages.backends import openvino_engine as e; e._core(); print('openvino' in sys.modules, sys.modules['openvino_telemetry'])"
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "True None\n"
    assert list(tmp_path.iterdir()) == []


@needs_openvino
def test_the_host_is_described_as_it_is() -> None:
    found = check_target(TARGET)
    assert found.present
    assert found.device != "host"
    assert (found.runtime, found.runtime_version) == ("openvino", metadata.version("openvino"))
    assert backend.weight_bits(found.model_copy(update={"isa": ("avx2",)})) == 7


@needs_openvino
def test_another_cpu_than_this_machines_is_refused_since_its_graph_is_not_known_here() -> None:
    target = load_profile("x86-avx512-vnni", {"target.runtime": "openvino", "target.runtime_version": '">=2026"'}).target
    with pytest.raises(DeviceUnavailable, match="Xeon Platinum 8280 is not in this machine"):
        check_target(target)


@pytest.mark.parametrize("change", [{"precision": "fp16"}, {"device": load_profile("rtx-4090").target.device}])
def test_what_bonsai_does_not_run_on_it_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"runtime 'openvino' cannot serve this target(.|\n)*cpu with fp32 or int8"):
        backend.refuse_unsupported(TARGET.model_copy(update=change))


def test_a_missing_installation_is_named_with_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> str:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(DeviceUnavailable, match="pip install 'openvino>=2026"):
        check_target(TARGET)
