"""Random numbers are drawn in training alone."""

import random
import re
from pathlib import Path

import hard_networks
import numpy as np
import pytest
import torch
from torch.nn import functional

from bonsai.profiles.errors import ConfigError
from bonsai.stages.graph.randomness import drawn_so_far, require_repeatable, seeded

SHAPE = (3, 8, 8)
DRAWING = {
    "randn_like": lambda x: x + torch.randn_like(x),
    "rand": lambda x: x * torch.rand(x.shape),
    "bernoulli": lambda x: x * torch.bernoulli(torch.full_like(x, 0.999)),
    "dropout": lambda x: functional.dropout(x, 0.3, True),
    "rrelu": lambda x: functional.rrelu(x - 0.5, training=True),
    "multinomial": lambda x: x[:, torch.multinomial(torch.ones(48), 48)],
    "normal_": lambda x: x + torch.empty_like(x).normal_(),
    "python": lambda x: x * random.random(),
    "numpy": lambda x: x * float(np.random.rand()),
}


def network(middle: object) -> torch.nn.Module:
    return type("Drawing", (hard_networks.Plain,), {"middle": lambda self, x: middle(x)})()  # type: ignore[operator]


@pytest.mark.parametrize("name", DRAWING)
def test_random_numbers_in_evaluation_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"draws random numbers in evaluation(.|\n)*in Drawing \(test_randomness\.py, line \d+\)|Python or numpy draws"):
        require_repeatable(network(DRAWING[name]), SHAPE)


def test_the_operator_is_named_with_its_module_and_line() -> None:
    line = next(n for n, text in enumerate(Path(__file__).read_text().splitlines(), 1) if '"randn_like": lambda' in text)
    with pytest.raises(ConfigError, match=re.escape(f"randn_like in Drawing (test_randomness.py, line {line})")):
        require_repeatable(network(DRAWING["randn_like"]), SHAPE)


@pytest.mark.parametrize("name", ["TrainingNoise", "FunctionalDropout", "FusedNorm"])
def test_random_numbers_in_training_are_allowed(name: str) -> None:
    made = getattr(hard_networks, name)()
    require_repeatable(made, SHAPE)
    assert made.training


def test_what_is_drawn_and_never_used_is_allowed() -> None:
    class Unused(hard_networks.Plain):
        def middle(self, x: torch.Tensor) -> torch.Tensor:
            drawn = torch.rand(1)
            return x * drawn if self.training else x

    require_repeatable(Unused(), SHAPE)


def test_seeds_set_all_sources_and_bring_them_back() -> None:
    before = drawn_so_far()
    with seeded(1):
        first = (random.random(), np.random.rand(), float(torch.rand(1)))
    with seeded(1):
        assert (random.random(), np.random.rand(), float(torch.rand(1))) == first
    assert drawn_so_far() == before
