"""A network in hand, quantised."""

import copy
from typing import Any, NamedTuple

import pytest
import torch
from branched import Rep
from torch import nn
from torch.optim.swa_utils import AveragedModel

import bonsai
from bonsai.profiles.errors import ConfigError
from bonsai.stages.quantization.calibrate import layers_of
from bonsai.stages.quantization.insert import quantizers_of

IMAGES = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(1))


class Pair(NamedTuple):
    maps: torch.Tensor
    scores: torch.Tensor


class Heads(nn.Module):
    """Two outputs, returned as `form` makes them."""

    def __init__(self, form: Any) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.maps, self.scores, self.form = nn.Conv2d(8, 4, 1), nn.Linear(8, 3), form

    def forward(self, x: torch.Tensor) -> Any:
        x = self.body(x)
        return self.form(self.maps(x), self.scores(x.mean((2, 3))))


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


def test_the_copy_is_calibrated_trainable_and_close_and_the_network_is_left_as_it_was() -> None:
    network = plain().train()
    before = copy.deepcopy(network.state_dict())
    quantised = bonsai.quantize(network, IMAGES, calibration=[(IMAGES, None)])
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert quantised.training and len(layers_of(quantised)) == 2
    state = quantizers_of(quantised)
    assert state is not None and state.dialect == "ort"
    expected = network.eval()(IMAGES)
    assert float((quantised.eval()(IMAGES) - expected).detach().abs().mean() / expected.detach().std()) < 0.05
    optimizer = torch.optim.SGD(quantised.parameters(), lr=0.1)
    old = [each.clone() for each in quantised.parameters()]
    quantised.train()(IMAGES).square().sum().backward()
    optimizer.step()
    assert not any(torch.equal(each, kept) for each, kept in zip(quantised.parameters(), old, strict=True) if each.grad is not None and each.grad.any())
    assert {id(each) for each in quantised.parameters()}.isdisjoint({id(each) for each in network.parameters()})


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: AveragedModel(network).module], ids=["deepcopy", "average"])
def test_copies_keep_their_quantisers(copied: Any) -> None:
    quantised = bonsai.quantize(plain(), IMAGES, calibration=IMAGES)
    assert quantizers_of(copied(quantised)) == quantizers_of(quantised)
    assert quantizers_of(plain()) is None


@pytest.mark.parametrize(
    ("form", "kind"),
    [(lambda a, b: (a, b), tuple), (lambda a, b: {"maps": a, "scores": b}, dict), (Pair, tuple), (lambda a, b: (b,), tuple), (lambda a, b: {"s": b}, dict)],
    ids=["tuple", "dict", "named", "one in a tuple", "one in a dict"],
)
def test_several_outputs_come_as_the_network_returns_them(form: Any, kind: type) -> None:
    network = Heads(form).eval()
    quantised = bonsai.quantize(network, IMAGES, calibration=IMAGES)
    expected, found = network(IMAGES), quantised(IMAGES)
    assert type(found) is kind and len(found) == len(expected)
    pairs = [(found[key], expected[key]) for key in expected] if isinstance(expected, dict) else list(zip(found, expected, strict=True))
    for each, wanted in pairs:
        assert each.shape == wanted.shape
        assert float((each - wanted).detach().abs().mean()) < 0.05 * float(wanted.detach().std())


def test_layers_may_stay_in_float_and_weights_may_have_seven_bits() -> None:
    quantised = bonsai.quantize(plain(), IMAGES, calibration=IMAGES, keep_float=["5"], weight_bits=7)
    state = quantizers_of(quantised)
    assert state is not None
    assert (state.kept_float, state.weight_bits) == (("5",), 7)
    assert isinstance(quantised.get_submodule("5"), nn.Linear)


def test_only_so_many_batches_are_used() -> None:
    used = []

    def batches() -> Any:
        for number in range(10):
            used.append(number)
            yield IMAGES

    bonsai.quantize(plain(), IMAGES, calibration=batches(), batches=2)
    assert used == [0, 1]


@pytest.mark.parametrize(
    ("model", "given", "said"),
    [
        (plain, {"calibration": IMAGES[:2]}, "calibration has too few samples"),
        (plain, {"calibration": IMAGES, "keep_float": ["convolution9"]}, "nothing that computes has this name"),
        (plain, {"calibration": IMAGES, "batches": 0}, "a setting is not allowed"),
        (plain, {"calibration": IMAGES, "weight_bits": 4}, "weight_bits=4"),
        (plain, {"calibration": IMAGES, "target": "no-such-device"}, "no-such-device"),
        (lambda: nn.DataParallel(plain()), {"calibration": IMAGES}, "the model is in a wrapper"),
        (lambda: plain().double(), {"calibration": IMAGES}, "no weights in FP32"),
        (lambda: nn.Sequential(nn.ReLU()), {"calibration": IMAGES}, "no parameters"),
        (lambda: Heads(lambda a, b: [a.argmax(1), b]), {"calibration": IMAGES}, "something else than tensors of a batch"),
        (lambda: nn.Sequential(nn.Linear(8, 3), nn.Unflatten(1, (7, 7))), {"calibration": IMAGES}, "does not run on the example input"),
        (lambda: bonsai.quantize(plain(), IMAGES, calibration=IMAGES), {"calibration": IMAGES}, "quantised already"),
    ],
)
def test_what_cannot_be_quantised_is_refused(model: Any, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        bonsai.quantize(model(), IMAGES, **given)


def test_a_wrong_example_is_refused() -> None:
    with pytest.raises(ConfigError, match="the example input is no batch"):
        bonsai.quantize(plain(), torch.zeros(3, dtype=torch.int64), calibration=IMAGES)


def test_branches_are_fused_first() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(Rep(1, 8), Rep(8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    network(IMAGES)
    quantised = bonsai.quantize(network.eval(), IMAGES, calibration=IMAGES)
    expected = network(IMAGES).detach()
    assert float((quantised(IMAGES) - expected).detach().abs().mean()) < 0.1 * float(expected.std())
    assert not any("point" in name for name, _ in quantised.named_parameters())
    assert any("point" in name for name, _ in network.named_parameters())
    assert all(each.requires_grad for each in quantised.parameters())
