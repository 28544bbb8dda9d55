import random
from itertools import count
from pathlib import Path

import hard_networks
import numpy as np
import pytest
import torch
from hard_networks import Plain
from torch import nn

from bonsai.profiles.errors import ConfigError
from bonsai.stages.networks.calling import outputs_of
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.inspection import random_images, require_whole_state
from bonsai.stages.networks.registry import build_network
from bonsai.stages.tasks.classification.learning import ClassificationLearning
from bonsai.stages.tasks.task import DataSpec
from bonsai.stages.training.config import TrainConfig

SHAPE = (3, 12, 12)
COUNTER = count()
MORE = r"(?s)the network is more than its state_dict.*given:   {}\n"


class TensorMask(Plain):
    def __init__(self, **options: int) -> None:
        super().__init__(**options)
        self.mask = (torch.rand(48, 1, 1) > 0.5).float()

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.mask


class ArrayMask(Plain):
    def __init__(self, **options: int) -> None:
        super().__init__(**options)
        self.masks = {"first": [np.random.rand(48, 1, 1).astype("float32")]}

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.from_numpy(self.masks["first"][0])


class Order(Plain):
    def __init__(self, **options: int) -> None:
        super().__init__(**options)
        self.order = random.sample(range(48), 48)

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, self.order]


class FleetingBuffer(Plain):
    def __init__(self, **options: int) -> None:
        super().__init__(**options)
        self.register_buffer("basis", torch.randn(48, 1, 1), persistent=False)

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.basis


class HiddenModule(Plain):
    """A layer in a plain list, of which torch knows nothing."""

    def __init__(self, **options: int) -> None:
        super().__init__(**options)
        self.extra = [nn.Conv2d(48, 48, 1)]

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return self.extra[0](x)


class Helper:
    def __init__(self, owner: nn.Module) -> None:
        self.owner, self.scale = [owner], random.random()


class HelperObject(Plain):
    def __init__(self, **options: int) -> None:
        super().__init__(**options)
        self.helper = Helper(self)

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.helper.scale


class OwnAverage(Plain):
    """Keeps its average in a plain attribute: nothing differs before the first step of training."""

    def __init__(self, **options: int) -> None:
        super().__init__(**options)
        self.average = torch.zeros(1)

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.average = 0.5 * self.average + 0.5 * x.detach().mean()
        return x - self.average


class TrainingMask(TensorMask):
    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return super().middle(x) if self.training else x


class Counted(Plain):
    """Scales by how many were built before."""

    def __init__(self, **options: int) -> None:
        super().__init__(**options)
        self.number = next(COUNTER)

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return x * (1 + self.number)


class Closure(Plain):
    def __init__(self, **options: int) -> None:
        super().__init__(**options)
        shift = random.random()
        self.shifted = lambda x: x + shift

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return self.shifted(x)


class Harmless(Plain):
    """Differs in what no output depends on, keeps its last activations, and derives a table from its arguments."""

    def __init__(self, **options: int) -> None:
        super().__init__(**options)
        self.identity, self.rng, self.last = random.random(), np.random.default_rng(), None
        self.register_buffer("table", torch.linspace(0, 1, 48).reshape(48, 1, 1), persistent=False)

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        self.last = x * self.table
        return self.last


class NumpyWeights(Plain):
    """Draws its initial weights by numpy: they are in the state, and depend on the recipe's seed alone."""

    def __init__(self, **options: int) -> None:
        super().__init__(**options)
        with torch.no_grad():
            self.conv2.weight.copy_(torch.from_numpy(np.random.randn(48, 48, 3, 3)))


class RandomWidth(Plain):
    def __init__(self, **options: int) -> None:
        super().__init__(**options, width=random.choice(range(16, 600)))


class NoisyEvaluation(Plain):
    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return x + float(np.random.rand())


class Remembering(Plain):
    def middle(self, x: torch.Tensor) -> torch.Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        return x * self.calls


class ExtraState(Plain):
    def get_extra_state(self) -> dict[str, int]:
        return {"version": 1}

    def set_extra_state(self, state: object) -> None:
        pass


class WeightNorm(Plain):
    def __init__(self, **options: int) -> None:
        super().__init__(**options)
        self.conv2 = nn.utils.weight_norm(self.conv2)


class Locked(Plain):
    def __init__(self, **options: int) -> None:
        super().__init__(**options)
        self.fc.file = Path(__file__).open()  # noqa: SIM115


class Auxiliary(Plain):
    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        logits = super().forward(x)
        return (logits, logits) if self.training else logits


def inspect(factory: type[nn.Module], **options: int | str) -> nn.Module:
    name = f"{factory.__module__}:{factory.__name__}"
    config = ModelConfig(name=name, options=options)
    network = build_network(config, SHAPE, 10)
    require_whole_state(config, network, DataSpec(SHAPE, 10), ClassificationLearning(TrainConfig()))
    return network


@pytest.mark.parametrize(
    ("factory", "named"),
    [
        (hard_networks.HiddenMask, "mask, order"),
        (TensorMask, "mask"),
        (ArrayMask, "masks"),
        (Order, "order"),
        (FleetingBuffer, "basis"),
        (HiddenModule, "extra"),
        (HelperObject, "helper"),
        (OwnAverage, "average"),
        (TrainingMask, "mask"),
        (Counted, "number"),
        (Closure, "no attribute that differs; outputs that differ by .*"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_state_outside_of_state_dict_is_named_and_refused(factory: type[nn.Module], named: str) -> None:
    with pytest.raises(ConfigError, match=MORE.format(named)):
        inspect(factory)


@pytest.mark.parametrize("factory", [Plain, hard_networks.InPlaceInput, hard_networks.TrainingNoise, hard_networks.CosineHead, Harmless, NumpyWeights])
def test_a_network_that_is_its_state_passes_and_is_left_as_it_was(factory: type[nn.Module]) -> None:
    network = inspect(factory)
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    before = build_network(ModelConfig(name=f"{factory.__module__}:{factory.__name__}"), SHAPE, 10).state_dict()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (RandomWidth, "does not fit into a network that the same factory builds"),
        (NoisyEvaluation, "the same images other outputs at every look, in evaluation"),
        (Remembering, "the same images other outputs at every look, in evaluation"),
        (ExtraState, "the network's state cannot be stored"),
        (WeightNorm, r"(?s)tensors that are computed from its parameters\n  given:   conv2\.weight\n"),
        (Locked, r"(?s)the network cannot be copied\n  given:   fc\.file: TypeError: cannot pickle"),
        (Auxiliary, r"(?s)the network gives no logits\n  given:   tuple for two images, in training"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated", "ignore:unclosed file:ResourceWarning")
def test_a_network_that_cannot_be_rebuilt_or_trained_is_refused(factory: type[nn.Module], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        inspect(factory)


def test_a_network_gets_a_copy_of_its_images() -> None:
    images = random_images(3, (1, 8, 8))
    before, network = images.clone(), hard_networks.InPlaceInput(in_channels=1).eval()
    assert torch.equal(outputs_of(network, images), outputs_of(network, images))
    assert torch.equal(images, before)


def test_building_leaves_no_trace_in_the_generators() -> None:
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    expected = random.random(), np.random.rand(), float(torch.rand(()))
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    inspect(Plain)
    assert (random.random(), np.random.rand(), float(torch.rand(()))) == expected
