"""A second task, as small as one can be: one number a sample, judged by the root of the mean squared error."""

from collections.abc import Mapping

import numpy as np
import torch

from bonsai.stages.tasks.metric import Metric
from bonsai.stages.tasks.task import Arrays, Baseline, DataSpec, Difference, Interval, Provable, Statistics, TensorSpec
from bonsai.stages.training.config import SoftTargets, TrainConfig

Z = 1.96


class Regression:
    metric = Metric(name="rmse", label="RMSE", unit="mm", direction="lower", best=0.0)
    learning = "toy_regression:RegressionLearning"

    def outputs(self, spec: DataSpec) -> tuple[TensorSpec, ...]:
        return (TensorSpec("value", (1,)),)

    def per_sample(self, found: Arrays, targets: Arrays) -> Statistics:
        return {"error": (found - targets).reshape(len(found)).astype(np.float64)}

    def reduce(self, statistics: Statistics) -> float:
        return float(np.sqrt(np.square(statistics["error"]).mean()))

    def bounds(self, statistics: Statistics, samples: int | None = None) -> Interval:
        squares, value = np.square(statistics["error"]), self.reduce(statistics)
        half = Z * float(squares.std()) / np.sqrt(samples or len(squares))
        return Interval(value, float(np.sqrt(max(value**2 - half, 0))), float(np.sqrt(value**2 + half)))

    def interval(self, before: Statistics, after: Statistics, samples: int | None = None) -> Interval:
        drop = self.metric.drop(self.reduce(before), self.reduce(after))
        rises = np.square(after["error"]) - np.square(before["error"])
        half = Z * float(rises.std()) / np.sqrt(samples or len(rises)) / max(self.reduce(before) + self.reduce(after), 1e-12)
        return Interval(drop, drop - half, drop + half)

    def baseline(self, targets: Arrays) -> Baseline:
        return Baseline(float(targets.std()), "always naming the mean")

    def difference(self, found: Arrays, expected: Arrays) -> Difference:
        apart = np.abs(found - expected)
        same = apart <= 0.01 * expected.std()
        return Difference(float(same.mean()), float(apart.mean()), float(apart.max()), float(expected.std()), float(np.abs(expected).max()))

    def provable(self, samples: int) -> Provable | None:
        return None

    def samples_to_prove(self, drop: float) -> int | None:
        return None

    def to_tensors(self, dense: Statistics | None, shipped: Statistics) -> dict[str, np.ndarray]:
        return ({} if dense is None else {"dense": dense["error"]}) | {"engine": shipped["error"]}

    def from_tensors(self, tensors: Mapping[str, np.ndarray]) -> tuple[Statistics | None, Statistics]:
        if tensors.keys() - {"dense"} != {"engine"}:
            raise ValueError("dense and engine, (n,) float64 each; no dense where there is no reference")
        return ({"error": tensors["dense"]} if "dense" in tensors else None), {"error": tensors["engine"]}


REGRESSION = Regression()


class RegressionLearning:
    def __init__(self, config: TrainConfig) -> None:
        pass

    def loss(self, found: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.mse_loss(found, targets)

    def imitate(self, student: torch.Tensor, teacher: torch.Tensor, how: SoftTargets) -> torch.Tensor:
        return how.weight * torch.nn.functional.mse_loss(student, teacher)

    def noise(self, found: torch.Tensor, expected: torch.Tensor) -> float:
        return float((found - expected).square().mean() / expected.square().mean())

    def require_outputs(self, found: object, spec: DataSpec, *, samples: int, mode: str) -> None:
        assert isinstance(found, torch.Tensor)
        assert found.shape == (samples, 1)

    def example_targets(self, samples: int, spec: DataSpec) -> torch.Tensor:
        return torch.zeros(samples, 1)
