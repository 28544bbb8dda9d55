import math
import operator
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from bonsai.stages.graph.kinds import is_add, is_mul, operation, readers, rectified_to
from bonsai.stages.graph.trace import trace

SHAPE = (3, 8, 8)


class Calls(nn.Module):
    """A network of one call."""

    def __init__(self, call: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.call = call
        self.module = call if isinstance(call, nn.Module) else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.call(x)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (nn.ReLU(), "relu"),
        (torch.relu, "relu"),
        (lambda x: x.relu_(), "relu"),
        (nn.SiLU(), "silu"),
        (functional.silu, "silu"),
        (functional.hardswish, "hardswish"),
        (lambda x: x.sigmoid(), "sigmoid"),
        (nn.Hardsigmoid(), "hardsigmoid"),
        (lambda x: functional.max_pool2d(x, 2), "max_pool2d"),
        (lambda x: functional.avg_pool2d(x, 2), "avg_pool2d"),
        (nn.AdaptiveAvgPool2d(1), "adaptive_avg_pool2d"),
        (lambda x: torch.concat([x, x], 1), "cat"),
        (lambda x: x.flatten(1), "flatten"),
        (nn.BatchNorm2d(3), "batch_norm"),
    ],
)
def test_modules_functions_and_methods_have_one_name(call: Callable[[torch.Tensor], torch.Tensor], expected: str) -> None:
    traced = trace(Calls(call).eval(), SHAPE)
    assert [operation(traced, node) for node in traced.graph.nodes] == ["placeholder", expected, "output"]


@pytest.mark.parametrize(
    ("call", "highest"),
    [
        (nn.ReLU(), math.inf),
        (nn.ReLU6(), 6),
        (functional.relu6, 6),
        (nn.Hardtanh(0, 4), 4),
        (lambda x: functional.hardtanh(x, 0.0, 5.0), 5),
        (lambda x: x.clamp(0, 3), 3),
        (lambda x: torch.clamp(x, min=0), math.inf),
        (lambda x: x.clamp(max=3), None),
        (nn.Hardtanh(), None),
        (torch.sigmoid, None),
    ],
)
def test_rectifiers_start_at_zero(call: Callable[[torch.Tensor], torch.Tensor], highest: float | None) -> None:
    traced = trace(Calls(call), SHAPE)
    assert rectified_to(traced, list(traced.graph.nodes)[1]) == highest


@pytest.mark.parametrize(
    ("call", "adds", "multiplies"),
    [
        (lambda x: x + x.relu(), True, False),
        (lambda x: torch.add(x, x), True, False),
        (lambda x: x + 1, False, False),
        (lambda x: x.mul(x.relu()), False, True),
        (lambda x: operator.imul(x.relu(), x), False, True),
        (lambda x: x * 0.5, False, False),
        (lambda x: x * x.size(0), False, False),
    ],
)
def test_only_two_tensors_are_added_or_multiplied(call: Callable[[torch.Tensor], torch.Tensor], adds: bool, multiplies: bool) -> None:
    traced = trace(Calls(call), SHAPE)
    last = list(traced.graph.nodes)[-2]
    assert (is_add(traced, last), is_mul(traced, last)) == (adds, multiplies)


def test_readers_are_seen_through_dropout() -> None:
    class Dropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x.relu()
            return self.drop(y) + y.sigmoid()

    traced = trace(Dropped(), SHAPE)
    relu = next(node for node in traced.graph.nodes if operation(traced, node) == "relu")
    assert [operation(traced, node) for node in readers(traced, relu)] == ["add", "sigmoid"]
