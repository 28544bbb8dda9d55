from importlib import metadata

import pytest

from bonsai.profiles.errors import ConfigError
from bonsai.profiles.loader import list_profiles, load_profile
from bonsai.profiles.roofline import estimate_us
from bonsai.profiles.schema import Precision, Target
from bonsai.stages.backends.registry import backend_of, check_target
from bonsai.stages.errors import DeviceUnavailable
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.registry import build_network
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.selection.operator_records import Operator
from bonsai.stages.selection.operators import list_operators

PROFILES = {name: load_profile(name) for name in list_profiles()}
ESTIMATED = [name for name, profile in PROFILES.items() if profile.target.device.peak is not None]
SHAPE = (1, 32, 32)


def with_runtime(runtime: str) -> list[str]:
    return [name for name, profile in PROFILES.items() if profile.target.runtime == runtime]


@pytest.fixture(scope="module")
def operators() -> tuple[Operator, ...]:
    """Those of the shipped recipe's network."""
    network = build_network(ModelConfig(name="resnet20", options={"width": 32}), SHAPE, 10)
    return list_operators(network, find_groups(network, SHAPE), SHAPE)


def estimate_network_us(operators: tuple[Operator, ...], target: Target, precision: Precision, step: int, *, widest: int | None = None) -> float:
    """Return the estimate of all operators, each group at its full width or at `widest` channels."""
    assert target.device.peak is not None
    total = 0.0
    for operator in operators:
        ci, co = operator.channels({group: min(width, widest or width) for group, width in operator.full_widths})
        total += estimate_us(operator.operator, ci, co, peak=target.device.peak, precision=precision, batch=target.batch, step=step)
    return total


@pytest.mark.parametrize("name", PROFILES)
def test_every_shipped_profile_asks_for_what_its_runtime_can_do(name: str) -> None:
    target = PROFILES[name].target
    backend_of(target).refuse_unsupported(target)


@pytest.mark.parametrize("name", with_runtime("onnxruntime"))
def test_a_cpu_profile_can_be_built_for_and_only_the_host_is_measured(name: str) -> None:
    target = PROFILES[name].target
    assert check_target(target).present == target.device.is_host


@pytest.mark.parametrize("name", [*with_runtime("tensorrt"), *with_runtime("tensorrt-rtx")])
def test_a_gpu_profile_names_the_fix_where_its_runtime_is_missing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> str:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", missing)
    target = PROFILES[name].target
    with pytest.raises(DeviceUnavailable, match=f"pip install '{target.runtime}{target.runtime_version}'"):
        check_target(target)


@pytest.mark.parametrize("name", ["jetson-orin-nano", "jetson-agx-orin", "h100", "h200"])
def test_a_gpu_that_rtx_does_not_build_for_is_refused_with_the_fix(name: str) -> None:
    with pytest.raises(ConfigError, match=r"change target\.runtime to tensorrt"):
        check_target(load_profile(name, {"target.runtime": "tensorrt-rtx"}).target)


@pytest.mark.parametrize("name", ESTIMATED)
def test_a_budget_can_be_reached_and_asks_for_pruning(name: str, operators: tuple[Operator, ...]) -> None:
    profile = PROFILES[name]
    target, step = profile.target, profile.width_step
    dense = estimate_network_us(operators, target, target.reference, getattr(profile.channel_multiple, target.reference))
    quantised = estimate_network_us(operators, target, target.precision, step)
    narrowest = estimate_network_us(operators, target, target.precision, step, widest=step)
    assert narrowest < profile.budget.limit_ms(dense) < quantised
