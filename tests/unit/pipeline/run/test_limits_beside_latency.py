"""Limits of a budget that are refused before training."""

import pytest

from bonsai.pipeline.run.limits import require_measurable, require_runs
from bonsai.profiles.errors import ConfigError
from bonsai.profiles.loader import load_profile
from bonsai.profiles.schema import HardwareProfile
from bonsai.stages.backends.engine import DeviceInfo
from bonsai.stages.backends.timing_config import TimingConfig


def info(*, present: bool) -> DeviceInfo:
    return DeviceInfo(device="a CPU", isa=(), cores=4, system="Linux", runtime="onnxruntime", runtime_version="1", present=present)


def profile(name: str = "local-cpu", **budget: float) -> HardwareProfile:
    return load_profile(name, {f"budget.{key}": limit for key, limit in budget.items()})


@pytest.mark.parametrize("key", ["p99_ms", "memory_mb", "energy_mj"])
def test_what_nothing_estimates_is_refused_where_the_device_is_elsewhere(key: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"(?s)profile x86-avx2: the budget limits what cannot be estimated.*given: +budget\.{key} 3\n.*do: .*remove budget\.{key}"
    ):
        require_measurable(profile("x86-avx2", **{key: 3}), info(present=False))
    require_measurable(profile(**{key: 3}), info(present=True))


def test_latency_and_size_need_no_device() -> None:
    require_measurable(profile("x86-avx2", latency=0.3, size_mb=1), info(present=False))


def test_the_memory_of_a_gpu_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"profile rtx-4090: the memory of a GPU is not measured\n +given: +budget.memory_mb 100"):
        require_measurable(profile("rtx-4090", memory_mb=100), info(present=True))


def test_a_p99_needs_a_thousand_runs() -> None:
    require_runs(profile(p99_ms=3), TimingConfig(runs=1000))
    require_runs(profile(), TimingConfig(runs=60))
    with pytest.raises(
        ConfigError, match=r"a p99 is not found from so few runs\n +given: +timing\.runs 999\n +allowed: 1000 runs or more\n +do: +set timing\.runs to 1000"
    ):
        require_runs(profile(p99_ms=3), TimingConfig(runs=999))


def test_an_engine_that_is_too_slow_for_a_thousand_runs_is_told_with_the_seconds_that_it_needs() -> None:
    require_runs(profile(p99_ms=3), TimingConfig(seconds=20), 20)
    with pytest.raises(ConfigError, match=r"given: +800 runs of 25 ms in timing\.seconds 20\n.*\n +do: +set timing\.seconds to 25 or more"):
        require_runs(profile(p99_ms=3), TimingConfig(seconds=20), 25)
