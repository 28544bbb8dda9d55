"""ONNX Runtime's execution providers in a profile."""

import pytest

from bonsai.profiles.errors import ConfigError
from bonsai.profiles.loader import load_profile

ON_GPU = {"target.runtime": "onnxruntime", "target.runtime_version": '">=1.24"', "target.precisions": "[fp32, fp16]"}


@pytest.mark.parametrize(
    ("profile", "overrides", "runs_on"),
    [
        ("local-cpu", {}, "onnxruntime"),
        ("local-cpu", {"target.provider": "openvino"}, "onnxruntime/openvino"),
        ("rtx-4090", ON_GPU | {"target.provider": "cuda"}, "onnxruntime/cuda"),
        ("l4", ON_GPU | {"target.provider": "tensorrt", "target.precision": "fp16"}, "onnxruntime/tensorrt"),
        ("rtx-4090", {}, "tensorrt-rtx"),
    ],
)
def test_a_target_runs_on_its_runtime_and_provider(profile: str, overrides: dict[str, str], runs_on: str) -> None:
    assert load_profile(profile, overrides).target.runs_on == runs_on


@pytest.mark.parametrize(
    ("profile", "overrides", "allowed"),
    [
        ("local-cpu", {"target.provider": "cuda"}, "for a cpu: cpu, openvino"),
        ("local-cpu", {"target.provider": "tensorrt"}, "for a cpu: cpu, openvino"),
        ("rtx-4090", ON_GPU, "for a gpu: cuda, tensorrt"),
        ("rtx-4090", ON_GPU | {"target.provider": "openvino"}, "for a gpu: cuda, tensorrt"),
        ("local-cpu-openvino", {"target.provider": "openvino"}, "no provider: it applies to runtime onnxruntime only; remove it for openvino"),
        ("rtx-4090", {"target.provider": "cuda"}, "no provider: it applies to runtime onnxruntime only; remove it for tensorrt-rtx"),
        ("local-cpu", {"target.provider": "dml"}, "'cpu', 'openvino', 'cuda' or 'tensorrt'"),
    ],
)
def test_a_provider_that_does_not_fit_is_refused(profile: str, overrides: dict[str, str], allowed: str) -> None:
    with pytest.raises(ConfigError, match=rf"'target\.provider' is not usable\n  given:   .*\n  allowed: .*{allowed}"):
        load_profile(profile, overrides)
