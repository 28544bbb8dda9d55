"""The module in place of torch's attention computes the same, whatever it is called with."""

import copy
from itertools import product

import pytest
import torch
from torch import nn

from bonsai.profiles.errors import ConfigError
from bonsai.stages.networks.attention import Attention, replace_attention
from bonsai.stages.networks.matching import match_weights

WIDTH, HEADS, TOKENS, KEYS, IMAGES = 12, 3, 5, 7, 2
ATTENTION_MASKS = {
    "none": None,
    "true where hidden": torch.ones(TOKENS, KEYS).triu(2).bool(),
    "numbers": torch.linspace(-1, 1, TOKENS * KEYS).reshape(TOKENS, KEYS),
    "of every head": torch.linspace(-1, 1, IMAGES * HEADS * TOKENS * KEYS).reshape(-1, TOKENS, KEYS),
}
PADDING = torch.tensor([[False] * 5 + [True] * 2, [False] * 7])
PADDINGS = {"none": None, "true where hidden": PADDING, "numbers": PADDING * -2.0}


def both(*, heads: int = HEADS, **options: object) -> tuple[nn.MultiheadAttention, nn.Module]:
    """Return torch's attention and what it is replaced by."""
    torch.manual_seed(0)
    network = nn.ModuleList([nn.MultiheadAttention(WIDTH, heads, **options)])
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    one = copy.deepcopy(network)[0]
    replace_attention(network)
    return one, network[0]


def inputs(batch_first: bool, key: int = WIDTH, value: int = WIDTH) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    sizes = ((TOKENS, WIDTH), (KEYS, key), (KEYS, value))
    return tuple(torch.randn(*((IMAGES, tokens) if batch_first else (tokens, IMAGES)), width, generator=generator) for tokens, width in sizes)


def require_same(one: nn.Module, other: nn.Module, *args: torch.Tensor, **options: object) -> None:
    for found, expected in zip(other(*args, **options), one(*args, **options), strict=True):
        assert (found is None) == (expected is None)
        if expected is not None:
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("mask", "padding"), list(product(ATTENTION_MASKS, PADDINGS)))
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("weights", [{"need_weights": False}, {}, {"average_attn_weights": False}], ids=["plain", "mean weights", "every head's weights"])
@pytest.mark.filterwarnings("ignore:Support for mismatched:UserWarning")
def test_it_computes_what_torchs_does(mask: str, padding: str, batch_first: bool, weights: dict[str, bool]) -> None:
    one, other = both(batch_first=batch_first)
    assert isinstance(other, Attention)
    require_same(one, other, *inputs(batch_first), attn_mask=ATTENTION_MASKS[mask], key_padding_mask=PADDINGS[padding], **weights)


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"kdim": 6, "vdim": 8}, {"kdim": 6, "vdim": 8, "bias": False}], ids=str)
@pytest.mark.parametrize("need_weights", [True, False])
def test_keys_and_values_may_have_widths_of_their_own(options: dict[str, int], need_weights: bool) -> None:
    one, other = both(batch_first=True, **options)
    require_same(one, other, *inputs(True, options.get("kdim", WIDTH), options.get("vdim", WIDTH)), need_weights=need_weights)


@pytest.mark.parametrize("mask", ["none", "true where hidden", "of every head"])
@pytest.mark.parametrize("need_weights", [True, False])
def test_it_takes_a_single_sequence(mask: str, need_weights: bool) -> None:
    one, other = both()
    hidden = ATTENTION_MASKS[mask]
    options = {"attn_mask": hidden[:HEADS] if hidden is not None and hidden.ndim == 3 else hidden, "key_padding_mask": PADDING[0]}
    query, key, value = (each[0] for each in inputs(True))
    if hidden is not None and hidden.dtype != torch.bool:
        options["key_padding_mask"] = None
    require_same(one, other, query, key, value, need_weights=need_weights, **options)


def test_a_causal_hint_needs_its_mask_as_in_torch() -> None:
    one, other = both(batch_first=True)
    query = inputs(True)[0]
    causal = nn.Transformer.generate_square_subsequent_mask(TOKENS)
    require_same(one, other, query, query, query, attn_mask=causal, is_causal=True, need_weights=False)
    for attention in (one, other):
        with pytest.raises(RuntimeError, match="Need attn_mask if specifying the is_causal hint"):
            attention.train()(query, query, query, is_causal=True)


@pytest.mark.parametrize("need_weights", [True, False])
def test_dropout_acts_in_training_alone_and_draws_what_torchs_draws(need_weights: bool) -> None:
    one, other = both(batch_first=True, dropout=0.3)
    drawn = []
    for attention in (one.train(), other.train()):
        torch.manual_seed(3)
        drawn.append(attention(*inputs(True), need_weights=need_weights))
    torch.testing.assert_close(drawn[0][0], drawn[1][0])
    require_same(one.eval(), other.eval(), *inputs(True), need_weights=need_weights)


def test_gradients_are_torchs() -> None:
    one, other = both(batch_first=True)
    for attention in (one, other):
        attention(*inputs(True))[0].square().sum().backward()
    joined = torch.cat([other.get_submodule(name).weight.grad for name in ("q_proj", "k_proj", "v_proj")])
    torch.testing.assert_close(joined, one.in_proj_weight.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(other.out_proj.weight.grad, one.out_proj.weight.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"kdim": 6, "vdim": 8}], ids=str)
def test_a_state_of_torchs_is_loaded_by_the_network_and_as_given_weights(options: dict[str, int]) -> None:
    torch.manual_seed(5)
    given = nn.Sequential(nn.MultiheadAttention(WIDTH, HEADS, **options), nn.Linear(WIDTH, 4))
    loaded, matched = (nn.Sequential(nn.MultiheadAttention(WIDTH, HEADS, **options), nn.Linear(WIDTH, 4)) for _ in range(2))
    for network in (loaded, matched):
        replace_attention(network)
    loaded.load_state_dict(given.state_dict())
    found = match_weights(matched, {f"module.{name}": value for name, value in given.state_dict().items()}, 4)
    assert found.prefix == "module."
    matched.load_state_dict(found.tensors)
    query, key, value = inputs(False, options.get("kdim", WIDTH), options.get("vdim", WIDTH))
    for network in (loaded, matched):
        require_same(given[0], network[0], query, key, value)
    with pytest.raises(ConfigError, match=r"missing: 0\.q_proj\.weight"):
        match_weights(matched, {name: value for name, value in given.state_dict().items() if "weight" not in name or "out" in name}, 4)


def test_what_is_frozen_or_shared_stays_so() -> None:
    attention = nn.MultiheadAttention(WIDTH, HEADS)
    attention.in_proj_weight.requires_grad_(False)
    attention.eval()
    network = nn.ModuleDict({"one": attention, "other": attention}).double()
    replace_attention(network)
    assert network["one"] is network["other"]
    frozen = {name for name, parameter in network["one"].named_parameters() if not parameter.requires_grad}
    assert frozen == {"q_proj.weight", "k_proj.weight", "v_proj.weight"}
    assert not network["one"].training
    assert network["one"].out_proj.weight.dtype == torch.float64
    storages = [parameter.untyped_storage().data_ptr() for parameter in network["one"].parameters()]
    assert len(set(storages)) == len(storages)


class Own(nn.MultiheadAttention):
    pass


def hooked() -> nn.MultiheadAttention:
    attention = nn.MultiheadAttention(WIDTH, HEADS)
    attention.register_forward_hook(lambda _module, _inputs, output: output)
    return attention


LEFT = {
    "add_bias_kv": lambda: nn.MultiheadAttention(WIDTH, HEADS, add_bias_kv=True),
    "add_zero_attn": lambda: nn.MultiheadAttention(WIDTH, HEADS, add_zero_attn=True),
    "own class": lambda: Own(WIDTH, HEADS),
    "hooks": hooked,
}


@pytest.mark.parametrize("name", LEFT)
def test_attention_that_does_more_is_left_as_it_is(name: str) -> None:
    network = nn.ModuleList([LEFT[name]()])
    before = network[0]
    replace_attention(network)
    assert network[0] is before


@pytest.mark.parametrize("options", [{}, {"norm_first": True}, {"batch_first": False}, {"activation": "gelu"}, {"nhead": 3}], ids=str)
@pytest.mark.parametrize("padded", [False, True])
def test_an_encoder_of_torch_computes_what_it_did(options: dict[str, object], padded: bool) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(**{"d_model": WIDTH, "nhead": 2, "dim_feedforward": 20, "batch_first": True, **options})
    one = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    other = copy.deepcopy(one)
    other.use_nested_tensor = True
    replace_attention(other)
    tokens = torch.randn(IMAGES, KEYS, WIDTH) if options.get("batch_first", True) else torch.randn(KEYS, IMAGES, WIDTH)
    mask = PADDING if padded else None
    shown = ~PADDING if options.get("batch_first", True) else ~PADDING.T
    for grad in (torch.enable_grad(), torch.no_grad()):  # with its slow path, and with its fast one
        with grad:
            expected, found = (network(tokens, src_key_padding_mask=mask) for network in (one, other))
            torch.testing.assert_close(found[shown], expected[shown], rtol=1e-5, atol=1e-5)
    for layer in (*one.modules(), *other.modules()):
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
        if isinstance(layer, nn.MultiheadAttention):
            layer.dropout = 0.0
    torch.testing.assert_close(other.train()(tokens, src_key_padding_mask=mask), one.train()(tokens, src_key_padding_mask=mask), rtol=1e-5, atol=1e-5)
