"""Points that are refused before training, and by what looks at one latency alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import bonsai
from bonsai.pipeline.run.flow import check_profile
from bonsai.pipeline.run.limits import require_measurable
from bonsai.pipeline.run.loading import load
from bonsai.pipeline.run.preflight import what_is_tried
from bonsai.profiles.errors import ConfigError
from bonsai.profiles.loader import load_profile
from bonsai.stages.backends.engine import DeviceInfo
from bonsai.stages.backends.timing_config import TimingConfig

TINY = str(Path(__file__).parents[3] / "integration" / "configs" / "tiny.yaml")
POINTS: list[dict[str, Any]] = [{"batch": 8, "budget": {"latency": 0.3}}, {"threads": 2, "budget": {"latency": 0.4}}]


def info(*, present: bool) -> DeviceInfo:
    return DeviceInfo(device="a CPU", isa=(), cores=4, system="Linux", runtime="onnxruntime", runtime_version="1", present=present)


def test_points_of_a_device_that_is_not_here_are_refused() -> None:
    told = r"(?s)profile x86-avx2: points are measured, never estimated.*given: +points at batch 8, 2 threads\n.*do: +give the profile the device's address"
    profile = load_profile("x86-avx2", {"points": POINTS})
    with pytest.raises(ConfigError, match=told):
        require_measurable(profile, info(present=False))
    require_measurable(profile, info(present=True))


def test_a_file_of_a_fixed_batch_has_no_points_at_another_one() -> None:
    told = r"(?s)a file of a fixed batch has no other points\n +given: +export\.dynamic_batch false, and points at batch 8\n.*at the target's batch of 1"
    with pytest.raises(ConfigError, match=told):
        load(TINY, "local-cpu", {"export.dynamic_batch": False, "profile.points": POINTS})
    load(TINY, "local-cpu", {"export.dynamic_batch": False, "profile.points": POINTS[1:]})
    load(TINY, "local-cpu", {"profile.points": POINTS})


def test_a_limit_of_a_point_is_refused_as_the_targets_is() -> None:
    few, gpu = TimingConfig(runs=100), load_profile("rtx-4090", {"target.batch": 8, "points": [{"batch": 4, "budget": {"latency": 0.3, "memory_mb": 9}}]})
    with pytest.raises(ConfigError, match=r"profile local-cpu at batch 8: a p99 is not found from so few runs"):
        check_profile(load_profile("local-cpu", {"points": [{"batch": 8, "budget": {"latency": 0.3, "p99_ms": 5}}]}), few)
    with pytest.raises(ConfigError, match=r"profile rtx-4090 at batch 4: the memory of a GPU is not measured"):
        require_measurable(gpu.at_points()["batch 4"], info(present=True))


def test_a_point_that_limits_memory_is_run_alone_before_training() -> None:
    profile = load_profile("local-cpu", {"points": [{"batch": 8, "budget": {"latency": 0.3, "memory_mb": 50}}]})
    assert "run alone for memory and energy" in what_is_tried(profile, info(present=True))
    assert "run alone" not in what_is_tried(load_profile("local-cpu", {"points": POINTS}), info(present=True))


def test_a_pruner_refuses_points(tmp_path: Path) -> None:
    (tmp_path / "box.yaml").write_text("extends: local-cpu\nname: box\npoints:\n  - {batch: 8, budget: {latency: 0.3}}\n")
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    told = (
        r"(?s)profile box: bonsai\.Pruner does not go with `points`: it chooses widths by one latency.*given: +points at batch 8.*do: +set profile\.points=\[\]"
    )
    with pytest.raises(ConfigError, match=told):
        bonsai.Pruner(model, optimizer, torch.zeros(2, 1, 8, 8), target=str(tmp_path / "box.yaml"), steps=100)
