from pathlib import Path

import pytest

from bonsai.profiles.errors import ConfigError
from bonsai.profiles.loader import load_profile
from bonsai.stages.backends.engine import DeviceInfo
from bonsai.stages.backends.onnxruntime_engine import backend
from bonsai.stages.errors import BuildError

TARGET = load_profile("local-cpu").target


def info(*isa: str) -> DeviceInfo:
    return backend.describe(TARGET).model_copy(update={"isa": isa})


def test_a_broken_file_is_a_build_error(tmp_path: Path) -> None:
    broken = tmp_path / "model.onnx"
    broken.write_bytes(b"no graph")
    with pytest.raises(BuildError, match=r"cannot build model\.onnx"):
        backend.build(broken, tmp_path / "engine.onnx", TARGET, (1, 8, 8))
    with pytest.raises(BuildError, match=r"cannot load model\.onnx"):
        backend.open_engine(broken, TARGET)


@pytest.mark.parametrize(("isa", "bits"), [(("avx2",), 7), (("avx2", "avx512f"), 7), (("avx2", "avx512_vnni"), 8), (("asimd",), 8), ((), 7)])
def test_weights_have_seven_bits_where_products_saturate(isa: tuple[str, ...], bits: int) -> None:
    assert backend.weight_bits(info(*isa)) == bits


def test_the_host_is_described_as_it_is() -> None:
    found = backend.describe(TARGET)
    assert found.present
    assert found.cores >= 1
    assert found.device != "host"


@pytest.mark.parametrize(("name", "bits"), [("x86-avx2", 7), ("x86-avx512-vnni", 8), ("x86-amx", 8), ("cortex-a72", 8), ("cortex-a76", 8)])
def test_another_cpu_is_described_by_its_profile_and_never_present(name: str, bits: int) -> None:
    target = load_profile(name).target
    found = backend.describe(target)
    assert (found.device, found.isa, found.present) == (target.device.name, target.device.isa, False)
    assert backend.weight_bits(found) == bits


@pytest.mark.parametrize("change", [{"precision": "fp16"}, {"device": load_profile("rtx-4090").target.device}])
def test_what_the_cpu_kernels_lack_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="cpu with fp32 or int8"):
        backend.refuse_unsupported(TARGET.model_copy(update=change))
