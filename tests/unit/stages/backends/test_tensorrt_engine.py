import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from bonsai.profiles.errors import ConfigError
from bonsai.profiles.loader import load_profile
from bonsai.profiles.schema import Target
from bonsai.stages.backends.host_gpu import is_model
from bonsai.stages.backends.machine import Gpu, parse_gpus
from bonsai.stages.backends.registry import BACKENDS, backend_of
from bonsai.stages.backends.tensorrt_build import Request
from bonsai.stages.backends.tensorrt_engine import BUILD_FILE, RTX_CAPABILITIES, TURING, full, rtx
from bonsai.stages.errors import DeviceUnavailable

NO_SUCH_SM = "99.9"


def target_of(runtime: str, *, sm: str = "8.9", precision: str = "int8") -> Target:
    overrides = {"target.runtime": runtime, "target.device.sm": f'"{sm}"', "target.precision": precision}
    return load_profile("rtx-4090", overrides).target


@pytest.mark.parametrize(("runtime", "backend"), [("tensorrt", full), ("tensorrt-rtx", rtx)])
def test_backend_of_returns_the_instance_of_the_runtime(runtime: str, backend: object) -> None:
    assert backend_of(target_of(runtime)) is backend
    assert runtime in BACKENDS


def test_import_of_the_backend_imports_neither_library() -> None:
    code = "import sys, bonsai.stages.backends.tensorrt_engine; print([name for name in sys.modules if name.startswith('tensorrt')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("sm", [sm for sm in RTX_CAPABILITIES if sm != TURING])
def test_rtx_accepts_its_capabilities(sm: str, precision: str) -> None:
    rtx.refuse_unsupported(target_of("tensorrt-rtx", sm=sm, precision=precision))


@pytest.mark.parametrize("sm", ["7.5", "8.7", "9.0"])
def test_full_accepts_what_rtx_does_not_build_for(sm: str) -> None:
    full.refuse_unsupported(target_of("tensorrt", sm=sm))


@pytest.mark.parametrize("sm", ["7.0", "8.7", "9.0", "10.0"])
def test_rtx_refuses_other_capabilities(sm: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"does not build for this compute capability\n  given:   sm {sm}\n  allowed: sm 7\.5, 8\.0, .*\n  do:      .*runtime to tensorrt,"
    ):
        rtx.refuse_unsupported(target_of("tensorrt-rtx", sm=sm))


def test_rtx_refuses_turing_at_fp32() -> None:
    with pytest.raises(ConfigError, match=r"FP32 GEMM is not supported(.|\n)*given:   sm 7\.5, fp32, fp16, int8\n(.|\n)*runtime to tensorrt,"):
        rtx.refuse_unsupported(target_of("tensorrt-rtx", sm=TURING, precision="fp16"))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_rtx_accepts_turing_without_fp32(precision: str) -> None:
    rtx.refuse_unsupported(load_profile("t4", {"target.precision": precision}).target)


@pytest.mark.parametrize("runtime", ["tensorrt", "tensorrt-rtx"])
def test_cpu_is_refused(runtime: str) -> None:
    target = load_profile("local-cpu", {"target.runtime": runtime}).target
    with pytest.raises(ConfigError, match=r"given:   cpu\n  allowed: gpu\n  do:      change target.device, or target.runtime to onnxruntime"):
        backend_of(target).refuse_unsupported(target)


@pytest.mark.parametrize("runtime", ["tensorrt", "tensorrt-rtx"])
def test_open_engine_raises_when_the_gpu_is_not_here(runtime: str, tmp_path: Path) -> None:
    target = target_of(runtime, sm=NO_SUCH_SM)
    with pytest.raises(
        DeviceUnavailable,
        match=rf"(?s)GeForce RTX 4090 are run where the GPU is\n  given: .*  allowed: a GeForce RTX 4090 \(sm {NO_SUCH_SM}\)\n  do: .* run this on",
    ):
        backend_of(target).open_engine(tmp_path / "engine.plan", target)


def test_full_build_raises_and_writes_nothing_when_the_gpu_is_not_here(tmp_path: Path) -> None:
    with pytest.raises(DeviceUnavailable, match="are built where the GPU is"):
        full.build(tmp_path / "model.onnx", tmp_path / "engine.plan", target_of("tensorrt", sm=NO_SUCH_SM), (1, 32, 32))
    assert list(tmp_path.iterdir()) == []


def test_a_timing_cache_is_an_input_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: a10\nname: mine\ntarget: {timing_cache: earlier.cache}\n")
    cache = tmp_path / "earlier.cache"
    with pytest.raises(ConfigError, match=rf"target.timing_cache: no such file\n  given:   {cache}\n"):
        full.refuse_unsupported(load_profile(str(tmp_path / "mine.yaml")).target)
    cache.write_bytes(b"timings")
    target = load_profile(str(tmp_path / "mine.yaml")).target
    full.refuse_unsupported(target)
    moved = target.model_copy(update={"timing_cache": str(cache.rename(tmp_path / "moved.cache"))})
    first = moved.identity()
    assert first != load_profile("a10").target.identity()
    (tmp_path / "moved.cache").write_bytes(b"other timings")
    assert moved.identity() != first
    shutil.copyfile(tmp_path / "moved.cache", cache)
    assert target.identity() == moved.identity()


@pytest.mark.parametrize("profile", ["local-cpu", "rtx-4090"])
def test_a_timing_cache_is_refused_where_no_kernels_are_timed(profile: str) -> None:
    with pytest.raises(ConfigError, match=r"'target\.timing_cache' is not usable(.|\n)*only runtime tensorrt times kernels"):
        load_profile(profile, {"target.timing_cache": "timing.cache"})


def test_parse_gpus_reads_every_line_of_nvidia_smi() -> None:
    listing = "NVIDIA GeForce RTX 4090, 8.9, GPU-1d2a\nNVIDIA H200, NVL, 9.0, GPU-77c0\n"
    assert parse_gpus(listing) == (Gpu("NVIDIA GeForce RTX 4090", "8.9", "GPU-1d2a"), Gpu("NVIDIA H200, NVL", "9.0", "GPU-77c0"))


@pytest.mark.parametrize(
    ("name", "gpu", "same"),
    [
        ("rtx-4090", Gpu("NVIDIA GeForce RTX 4090", "8.9", "GPU-1"), True),
        ("rtx-4090", Gpu("NVIDIA GeForce RTX 4090 Laptop GPU", "8.9", "GPU-1"), False),
        ("rtx-3060", Gpu("NVIDIA GeForce RTX 3060 Ti", "8.6", "GPU-1"), False),
        ("t4", Gpu("Tesla T4", "7.5", "GPU-1"), True),
        ("l4", Gpu("NVIDIA L40S", "8.9", "GPU-1"), False),
        ("a10", Gpu("NVIDIA A10G", "8.6", "GPU-1"), False),
        ("h200", Gpu("NVIDIA GH200 480GB", "9.0", "GPU-1"), False),
    ],
)
def test_a_gpu_is_the_target_by_its_whole_name(name: str, gpu: Gpu, same: bool) -> None:
    assert is_model(gpu, load_profile(name).target.device) is same


def test_building_process_answers_unavailable_when_the_library_cannot_be_imported() -> None:
    request = Request(library="tensorrt_missing", graph="g", engine="e", image_shape=(1, 8, 8), batch=1, capability=None)
    done = subprocess.run([sys.executable, "-P", str(BUILD_FILE)], input=json.dumps(asdict(request)), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"unavailable": "No module named 'tensorrt_missing'"}


@pytest.mark.parametrize(
    ("profile", "overrides", "reason"),
    [
        ("rtx-4090", {}, "only runtime tensorrt has kernels"),
        ("local-cpu", {}, "only runtime tensorrt"),
        ("a10", {"target.device.sm": '"7.5"'}, "need compute"),
    ],
)
def test_sparse_weights_are_refused_where_no_kernels_are(profile: str, overrides: dict[str, str], reason: str) -> None:
    with pytest.raises(ConfigError, match=rf"'target\.sparse_weights' is not usable(.|\n)*{reason}"):
        load_profile(profile, {**overrides, "target.sparse_weights": True})


def test_sparse_weights_are_off_and_another_target_when_on() -> None:
    plain, sparse = load_profile("a10").target, load_profile("a10", {"target.sparse_weights": True}).target
    assert (plain.sparse_weights, "sparse" in plain.identity()) == (False, False)
    assert sparse.identity() != plain.identity()
