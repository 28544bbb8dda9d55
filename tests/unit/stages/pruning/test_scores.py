from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import nn
from torch.nn import functional

from bonsai.profiles.errors import ConfigError
from bonsai.stages.networks.cifar_resnet import resnet8, resnet20
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.criteria import Criterion
from bonsai.stages.pruning.groups import Group
from bonsai.stages.pruning.scores import BATCH_CRITERIA, WEIGHT_CRITERIA, normalise, producing_weights, require_scores, weight_scores
from bonsai.stages.pruning.statistics import BatchStatistics

SHAPE = (1, 16, 16)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return resnet8(in_channels=1, num_classes=10)


@pytest.fixture
def groups(network: nn.Module) -> tuple[Group, ...]:
    return find_groups(network, SHAPE)


def backward(network: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images, labels = torch.randn(8, *SHAPE, generator=generator), torch.randint(0, 10, (8,), generator=generator)
    network.zero_grad()
    functional.cross_entropy(network(images), labels).backward()


def test_every_criterion_can_be_named_in_a_recipe() -> None:
    assert set(get_args(Criterion)) == {*WEIGHT_CRITERIA, *BATCH_CRITERIA}


def test_the_weights_of_a_channel_are_those_of_all_coupled_layers(network: nn.Module, groups: tuple[Group, ...]) -> None:
    stream = next(g for g in groups if g.name == "conv1")
    expected = torch.cat([network.conv1.weight.flatten(1), network.layer1[0].conv2.weight.flatten(1)], 1)
    assert sorted(producing_weights(network, stream)[3].tolist()) == sorted(expected[3].tolist())


def test_weight_criteria_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 1, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(3, 2))
    network[0].weight.data = torch.tensor([3.0, -1.0, 2.0]).reshape(3, 1, 1, 1)
    network[1].weight.data = torch.tensor([0.5, -2.0, 1.0])
    groups = find_groups(network, (1, 1, 1))
    scores = {name: by_group["0"].tolist() for name, by_group in weight_scores(network, groups).items()}
    assert scores["magnitude_l2"] == [3, 1, 2]
    assert scores["bn_scale"] == [0.5, 2, 1]
    assert scores["fpgm"] == pytest.approx([5, 7, 4], abs=1e-2)
    assert scores["random"] == pytest.approx(weight_scores(network, groups)["random"]["0"].tolist())


def test_gradient_criteria_by_hand(network: nn.Module, groups: tuple[Group, ...]) -> None:
    statistics = BatchStatistics(network, groups, window=1)
    backward(network, 0)
    statistics.observe()
    scores = statistics.scores()
    conv, bn = network.layer1[0].conv1, network.layer1[0].bn1
    products = (conv.weight * conv.weight.grad).flatten(1)
    name = "layer1.0.conv1"
    torch.testing.assert_close(scores["snip"][name], products.abs().sum(1).detach())
    torch.testing.assert_close(scores["bn_gradient"][name], (bn.weight * bn.weight.grad + bn.bias * bn.bias.grad).abs().detach())


def test_weights_times_gradients_add_up_to_zero_before_a_batchnorm(network: nn.Module) -> None:
    backward(network, 0)  # so a criterion that takes this sum would rank these channels by rounding
    for convolution in (module for module in network.modules() if isinstance(module, nn.Conv2d)):
        products = (convolution.weight.detach() * convolution.weight.grad).flatten(1)
        assert float((products.sum(1).abs() / products.abs().sum(1)).max()) < 1e-2


def scored(*norms: nn.Module) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """Return a network of two convolutions, each with a norm behind it, and the scores of the first one's channels."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 8, 3), norms[0], nn.ReLU(), nn.Conv2d(8, 4, 3), norms[1], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    statistics = BatchStatistics(network, find_groups(network, SHAPE), window=1)
    backward(network, 0)
    statistics.observe()
    return network, {name: by_group["0"] for name, by_group in statistics.scores().items()}


@pytest.mark.parametrize("norm", [lambda n: nn.InstanceNorm2d(n, affine=True), lambda n: nn.GroupNorm(4, n)], ids=["InstanceNorm", "GroupNorm"])
def test_every_normalisation_with_a_scale_is_scored(norm: Callable[[int], nn.Module]) -> None:
    network, scores = scored(norm(8), norm(4))
    terms = (network[1].weight * network[1].weight.grad + network[1].bias * network[1].bias.grad).detach()
    torch.testing.assert_close(scores["bn_gradient"], terms.reshape(len(scores["bn_gradient"]), -1).sum(1).abs())  # a GroupNorm loses whole groups


@pytest.mark.parametrize("norm", [nn.InstanceNorm2d, lambda n: nn.BatchNorm2d(n, affine=False)], ids=["InstanceNorm", "BatchNorm"])
def test_a_normalisation_without_a_scale_leaves_no_noise_as_score(norm: Callable[[int], nn.Module]) -> None:
    network, scores = scored(norm(8), norm(4))
    product = (network[0].weight * network[0].weight.grad).flatten(1).detach()
    assert float(product.sum(1).abs().max()) < 1e-3 * float(product.abs().sum(1).max())
    torch.testing.assert_close(scores["bn_gradient"], product.abs().sum(1))


def test_a_frozen_batchnorm_leaves_the_weights_to_score_by() -> None:
    network, scores = scored(nn.BatchNorm2d(8).requires_grad_(False).eval(), nn.Identity())
    product = (network[0].weight * network[0].weight.grad).flatten(1).detach()
    torch.testing.assert_close(scores["bn_gradient"], product.sum(1).abs())


def test_a_group_without_batchnorm_is_scored_by_its_weights() -> None:
    network = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    statistics = BatchStatistics(network, find_groups(network, SHAPE), window=1)
    backward(network, 0)
    statistics.observe()
    product = (network[0].weight * network[0].weight.grad).flatten(1)
    torch.testing.assert_close(statistics.scores()["bn_gradient"]["0"], product.sum(1).abs().detach())


@pytest.mark.parametrize("criterion", BATCH_CRITERIA)
def test_a_criterion_alone_scores_as_it_does_beside_the_others(network: nn.Module, groups: tuple[Group, ...], criterion: str) -> None:
    alone, all_of_them = BatchStatistics(network, groups, 4, criteria=(criterion,)), BatchStatistics(network, groups, 4)
    for seed in range(3):
        backward(network, seed)
        alone.observe()
        all_of_them.observe()
    assert set(alone.scores()) == {criterion}
    for group, vector in alone.scores()[criterion].items():
        assert torch.equal(vector, all_of_them.scores()[criterion][group])
        assert bool(vector.abs().sum() > 0)


def test_coupled_scales_are_summed_with_their_signs(network: nn.Module, groups: tuple[Group, ...]) -> None:
    statistics = BatchStatistics(network, groups, window=1)
    backward(network, 0)
    statistics.observe()
    terms = [bn.weight * bn.weight.grad + bn.bias * bn.bias.grad for bn in (network.bn1, network.layer1[0].bn2)]
    torch.testing.assert_close(statistics.scores()["bn_gradient"]["conv1"], (terms[0] + terms[1]).abs().detach())


def test_the_average_forgets_and_its_weights_add_up_to_one(network: nn.Module, groups: tuple[Group, ...]) -> None:
    single, averaged = (BatchStatistics(network, groups, window) for window in (1, 4))
    batches = []
    for seed in range(3):
        backward(network, seed)
        single.observe()
        averaged.observe()
        batches.append(single.scores()["snip"]["conv1"])
    weights = torch.tensor([0.75**2, 0.75, 1.0])
    expected = sum(w * b for w, b in zip(weights / weights.sum(), batches, strict=True))
    torch.testing.assert_close(averaged.scores()["snip"]["conv1"], expected)


def test_statistics_go_on_from_their_state(network: nn.Module, groups: tuple[Group, ...]) -> None:
    whole, first, second = (BatchStatistics(network, groups, window=5) for _ in range(3))
    for seed in range(4):
        backward(network, seed)
        whole.observe()
        if seed == 2:
            second.restore(first.state())
        (first if seed < 2 else second).observe()
    for name, by_group in whole.scores().items():
        for group, vector in by_group.items():
            assert torch.equal(second.scores()[name][group], vector)


def test_scores_before_the_first_batch_are_zero_and_not_nan(network: nn.Module, groups: tuple[Group, ...]) -> None:
    for by_group in BatchStatistics(network, groups, window=5).scores().values():
        assert all(float(vector.abs().sum()) == 0 for vector in by_group.values())


@pytest.mark.parametrize("how", ["none", "local", "global", "isomorphic"])
def test_normalised_scores_keep_their_order(groups: tuple[Group, ...], how: str) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = {g.name: torch.rand(g.width, generator=generator) * 10 ** (i % 3) for i, g in enumerate(groups)}
    normalised = normalise(scores, groups, how)
    for name, vector in scores.items():
        assert torch.equal(vector.argsort(), normalised[name].argsort())


def test_what_each_normalisation_makes_one(groups: tuple[Group, ...]) -> None:
    scores = {g.name: torch.full((g.width,), float(i + 1)) for i, g in enumerate(groups)}
    assert all(float(v.mean()) == pytest.approx(1) for v in normalise(scores, groups, "local").values())
    assert float(torch.cat(list(normalise(scores, groups, "global").values())).mean()) == pytest.approx(1)


def test_isomorphic_groups_are_made_comparable_among_themselves() -> None:
    groups = find_groups(resnet20(in_channels=1, num_classes=10), SHAPE)
    scores = {g.name: torch.full((g.width,), float(i + 1)) for i, g in enumerate(groups)}
    normalised = normalise(scores, groups, "isomorphic")
    blocks = [f"layer{stage}.{i}.conv1" for stage in (1, 2, 3) for i in range(3)]
    assert float(torch.cat([normalised[name] for name in blocks]).mean()) == pytest.approx(1)
    assert float(normalised["conv1"][0] / normalised["conv1"].mean()) == pytest.approx(1)
    half = tuple(g.model_copy(update={"members": tuple(m.model_copy(update={"indices": m.indices[::2]}) for m in g.members)}) for g in groups[:4])
    again = normalise(scores, (*half, *groups[4:]), "isomorphic")
    assert all(torch.equal(vector, again[name]) for name, vector in normalised.items())  # a cut leaves the kinship as it is


def test_a_criterion_that_cannot_tell_channels_apart_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    groups = find_groups(network, (1, 16, 16))
    with pytest.raises(ConfigError, match="which some groups lack\n  given:   0\n"):
        require_scores(network, groups, "bn_scale")
    require_scores(network, groups, "magnitude_l2")


def test_equal_scores_give_numbers(groups: tuple[Group, ...]) -> None:
    zeros = {g.name: torch.zeros(g.width) for g in groups}
    for how in ("none", "local", "global", "isomorphic"):
        assert all(torch.isfinite(v).all() for v in normalise(zeros, groups, how).values())
