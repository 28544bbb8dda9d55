"""Heads, MLP widths and embedding widths leave networks with attention: removing them is masking them."""

import copy

import pytest
import torch
from small_vits import QUICK, WHOLE, Case, made
from torch import nn

from bonsai.stages.networks.attention import replace_attention
from bonsai.stages.networks.inspection import random_images
from bonsai.stages.pruning.carrying import keep_in_training
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.equality import outputs, varies
from bonsai.stages.pruning.groups import Group, Kept
from bonsai.stages.pruning.settling import settle, wake
from bonsai.stages.pruning.surgery import check_cut, cut
from bonsai.stages.pruning.trial import refused_groups

CASES = [pytest.param(case, id=name) for name, case in QUICK.items()]
CASES += [pytest.param(case, id=f"{name}, whole", marks=pytest.mark.slow) for name, case in WHOLE.items()]


def shape_of(case: Case) -> tuple[int, int, int]:
    return (3, case.size, case.size)


def random_widths(groups: tuple[Group, ...], seed: int) -> Kept:
    generator = torch.Generator().manual_seed(seed)
    widths = {group.name: int(torch.randint(1, group.width, (), generator=generator)) for group in groups}
    return {group.name: tuple(sorted(torch.randperm(group.width, generator=generator)[: widths[group.name]].tolist())) for group in groups}


@pytest.mark.parametrize("case", CASES)
def test_removing_at_random_widths_is_masking(case: Case) -> None:
    network, shape = made(case), shape_of(case)
    groups = find_groups(network, shape)
    heads = [group for group in groups if group.positions > 1]
    assert (len(heads), len(groups) - len(heads)) == (case.heads, case.others)
    refused = refused_groups(network, groups, shape)
    assert tuple(refused) == case.refused
    wake(network, random_images(4, shape))
    settle(network, random_images(4, shape))
    assert varies(outputs(network, random_images(4, shape)))
    for seed in (0, 1):
        pruned = copy.deepcopy(network)
        edit = cut(pruned, groups, random_widths(tuple(group for group in groups if group.name not in refused), seed))
        assert check_cut(network, pruned, edit, shape) < 1e-3
        assert sum(p.numel() for p in pruned.parameters()) < 0.9 * sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", ["encoder", "encoder, norms first", "tokens first", "torchvision"])
def test_a_cut_network_of_torchs_layers_computes_alike_in_training_and_evaluation(name: str) -> None:
    network, shape = made(QUICK[name]), shape_of(QUICK[name])
    cut(network, groups := find_groups(network, shape), random_widths(groups, 0))
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    images = random_images(4, shape)
    with torch.no_grad():  # torch's fast path runs in evaluation without gradients alone
        fast = network.eval()(images)
    torch.testing.assert_close(network.train()(images), fast, rtol=1e-4, atol=1e-5)
    network.train()(images).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_cut_encoder_takes_a_mask_of_padding_in_evaluation() -> None:
    network = nn.ModuleDict({"encoder": nn.TransformerEncoder(nn.TransformerEncoderLayer(12, 4, 20, batch_first=True), 2), "head": nn.Linear(12, 3)})
    network.forward = lambda x: network["head"](network["encoder"](x[:, 0]).mean(1))
    replace_attention(network.eval())
    groups = find_groups(network, (1, 5, 12))
    cut(network, groups, {group.name: tuple(range(group.width // 2)) for group in groups if group.positions > 1})
    tokens, hidden = torch.randn(2, 5, 12), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    with torch.no_grad():
        found = network["encoder"](tokens, src_key_padding_mask=hidden)
        alone = network["encoder"](tokens[1:, :3])
    torch.testing.assert_close(found[1:, :3], alone)


def test_a_heads_group_is_named_by_its_queries_and_its_number_of_heads_follows() -> None:
    network = made(QUICK["torchvision"])
    attention = "encoder.layers.encoder_layer_0.self_attention"
    groups = find_groups(network, (3, 32, 32))
    found = next(group for group in groups if group.name == f"{attention}.q_proj")
    assert {member.module.rpartition(".")[2]: member.side for member in found.members} == {"q_proj": "out", "k_proj": "out", "v_proj": "out", "out_proj": "in"}
    assert (found.width, found.positions) == (4, 12)
    cut(network, groups, {found.name: (1, 3)})
    cut_attention = network.get_submodule(attention)
    assert (cut_attention.num_heads, cut_attention.scale) == (2, 12**-0.5)
    assert {layer: tuple(cut_attention.get_submodule(layer).weight.shape) for layer in ("q_proj", "v_proj", "out_proj")} == {
        "q_proj": (24, 48),
        "v_proj": (24, 48),
        "out_proj": (48, 24),
    }


def test_the_optimizer_goes_on_with_the_moments_of_the_heads_that_are_left() -> None:
    case = QUICK["torchvision"]
    network, shape = made(case).train(), shape_of(case)
    groups = find_groups(network, shape)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    images = random_images(4, shape)
    network(images).square().mean().backward()
    optimizer.step()
    before = {name: optimizer.state[parameter]["exp_avg"].clone() for name, parameter in network.named_parameters()}
    edit = cut(copy.deepcopy(network), groups, random_widths(groups, 0))
    keep_in_training(network, optimizer, (), edit)
    query = "encoder.layers.encoder_layer_0.self_attention.q_proj.weight"
    assert 0 < len(network.get_parameter(query)) < 48
    kept = edit.by_axis()
    for name, parameter in network.named_parameters():
        moments = before[name]
        for axis in range(moments.ndim):
            moments = moments.index_select(axis, torch.tensor(kept.get((name, axis), range(moments.shape[axis]))))
        assert torch.equal(optimizer.state[parameter]["exp_avg"], moments)
    loss = network(images).square().mean()
    loss.backward()
    optimizer.step()
    assert network(images).square().mean() < loss


class OneHead(nn.Module):
    """Attention of one head over the pixels: its channels leave one by one."""

    def __init__(self, scale: float | None) -> None:
        super().__init__()
        self.stem, self.scale = nn.Conv2d(3, 16, 4, 4), scale
        self.q, self.k, self.v, self.head = nn.Linear(16, 12), nn.Linear(16, 12), nn.Linear(16, 10), nn.Linear(10, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        return self.head(nn.functional.scaled_dot_product_attention(self.q(tokens), self.k(tokens), self.v(tokens), scale=self.scale).mean(1))


@pytest.mark.parametrize(("scale", "refused"), [(12**-0.5, set()), (None, {"q"})], ids=["the trained scale stays", "the scale follows the width"])
def test_the_width_of_a_single_head_is_prunable_where_its_scale_stays(scale: float | None, refused: set[str]) -> None:
    network = OneHead(scale)
    groups = find_groups(network, (3, 16, 16))
    assert [(group.name, group.width) for group in groups] == [("stem", 16), ("q", 12), ("v", 10)]
    assert set(refused_groups(network, groups, (3, 16, 16))) == refused


@pytest.mark.parametrize("options", [{"add_bias_kv": True}, {"add_zero_attn": True}], ids=str)
def test_attention_that_cannot_be_replaced_stays_whole_and_is_named(options: dict[str, bool]) -> None:
    network = made(QUICK["torchvision"])
    block = network.encoder.layers.encoder_layer_1
    block.self_attention = nn.MultiheadAttention(48, 4, batch_first=True, **options)
    replace_attention(network)
    groups = find_groups(network, (3, 32, 32))
    assert [group.name.rpartition("encoder_layer_")[2] for group in groups] == ["0.self_attention.q_proj", "0.mlp.0", "1.mlp.0"]
    reasons = refused_groups(network, groups, (3, 32, 32))
    assert "an nn.MultiheadAttention with add_bias_kv, add_zero_attn, hooks" in reasons["encoder.layers.encoder_layer_1.self_attention.out_proj"]
    assert "conv_proj" in reasons


def test_attention_of_torchs_that_was_not_replaced_says_what_to_do() -> None:
    network = QUICK["encoder"].make()
    groups = find_groups(network, (3, 16, 16))
    assert [group.name for group in groups] == ["encoder.layers.0.linear1", "encoder.layers.1.linear1"]
    assert "(call `replace_attention` before the optimizer is made)" in refused_groups(network, groups, (3, 16, 16))["patches"]
