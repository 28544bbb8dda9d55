"""Attention that can lose heads and inputs, instead of torch's.

`nn.MultiheadAttention` computes the width of a head from the width of its inputs, so it can lose neither. `replace_attention` puts a module into its place
that computes the same from layers of its own.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

INPUTS = ("q_proj", "k_proj", "v_proj")
"""Layers of an `Attention` that make queries, keys and values."""


def replace_attention(network: nn.Module) -> None:
    """Replace torch's attention in a network, in place; its weights have new names.

    Attention with `add_bias_kv`, `add_zero_attn`, hooks or a class of its own stays as it is. An encoder of torch gets no nested tensors any more:
    padded positions are then computed in evaluation as they are in training.

    Args:
        network: Without an optimizer yet, because parameters are replaced.
    """
    made: dict[nn.Module, Attention] = {}
    for module in list(network.modules()):
        for name, child in module._modules.items():
            if isinstance(child, nn.MultiheadAttention) and replaceable(child):
                module._modules[name] = made.setdefault(child, Attention(child))
    for module in network.modules() if made else ():
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False


def replaceable(attention: nn.MultiheadAttention) -> bool:
    """Whether `replace_attention` replaces it."""
    hooked = attention._forward_hooks or attention._forward_pre_hooks
    return type(attention) is nn.MultiheadAttention and attention.bias_k is None and not attention.add_zero_attn and not hooked


class Attention(nn.Module):
    """Computes what a `nn.MultiheadAttention` does; `forward` takes and returns the same.

    A `state_dict` of torch's module can be loaded.

    Args:
        of: Its weights, mode and settings are taken over.

    Attributes:
        num_heads: Heads that are left; queries, keys and values are divided evenly between them.
        scale: Factor of the products of queries and keys. It stays as the dense network has it.
    """

    in_proj_bias = None
    """For `nn.TransformerEncoderLayer`: without it, the layer calls this module instead of computing with the weights of torch's."""

    def __init__(self, of: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads, self.batch_first, self.scale = of.num_heads, of.batch_first, of.head_dim**-0.5
        self.q_proj, self.k_proj, self.v_proj = (
            nn.Linear(inputs, of.embed_dim, bias=of.in_proj_bias is not None, device="meta") for inputs in (of.embed_dim, of.kdim, of.vdim)
        )
        self.dropout = nn.Dropout(of.dropout)
        self.out_proj = nn.Linear(of.embed_dim, of.embed_dim, bias=of.out_proj.bias is not None, device="meta")
        frozen = {name for name, parameter in of.named_parameters() if not parameter.requires_grad}
        state = dict(of.state_dict())
        rename_weights(state, "")
        self.load_state_dict({name: value.clone() for name, value in state.items()}, assign=True)  # no two of which share memory
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(frozen.isdisjoint({name, *_torchs(name)}))
        self.train(of.training)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Do as `nn.MultiheadAttention.forward`; `is_causal` is a hint that a mask says more exactly."""
        if is_causal and attn_mask is None:
            raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
        batched = query.dim() == 3
        if not batched:
            query, key, value = (each.unsqueeze(0) for each in (query, key, value))
        elif not self.batch_first:
            query, key, value = (each.transpose(0, 1) for each in (query, key, value))
        q, k, v = (self._heads(layer, each) for layer, each in zip((self.q_proj, self.k_proj, self.v_proj), (query, key, value), strict=True))
        mask = self._mask(attn_mask, key_padding_mask, q)
        weights = None
        if need_weights or self.dropout.p:
            products = q * self.scale @ k.transpose(-2, -1)
            weights = self.dropout((products if mask is None else products + mask).softmax(-1))
            found = weights @ v
        else:
            found = functional.scaled_dot_product_attention(q, k, v, mask, scale=self.scale)
        found = self.out_proj(found.transpose(1, 2).flatten(2))
        if not need_weights:
            weights = None
        elif weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not batched:
            return found.squeeze(0), None if weights is None else weights.squeeze(0)
        return found if self.batch_first else found.transpose(0, 1), weights

    def _heads(self, layer: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
        """Return (n, heads, tokens, width of a head) of (n, tokens, width)."""
        found: torch.Tensor = layer(tokens).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        return found

    def _mask(self, attention: torch.Tensor | None, padding: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor | None:
        """Return what is added to the products, to be broadcast to (n, heads, queries, keys)."""
        masks = []
        if attention is not None:
            per_head = (-1, self.num_heads) if attention.dim() == 3 else ()
            masks.append(_added(attention, like).reshape(*per_head, *attention.shape[-2:]))
        if padding is not None:
            masks.append(_added(padding, like).reshape(-1, 1, 1, padding.shape[-1]))
        return sum(masks[1:], masks[0]) if masks else None

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        rename_weights(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """Return what torch prints."""
        return f"num_heads={self.num_heads}"


def rename_weights(state: dict[str, Any], prefix: str) -> None:
    """Give the weights of one torch's attention, in place, the names that they have in an `Attention`.

    Args:
        state: Tensors by name.
        prefix: What the names of this attention begin with: ``encoder.self_attn.``.
    """
    for kind in ("weight", "bias"):
        joined = state.pop(f"{prefix}in_proj_{kind}", None)
        if joined is not None:
            state.update({f"{prefix}{name}.{kind}": part for name, part in zip(INPUTS, joined.chunk(3), strict=True)})
    for name in INPUTS:
        if f"{prefix}{name}_weight" in state:
            state[f"{prefix}{name}.weight"] = state.pop(f"{prefix}{name}_weight")


def _torchs(name: str) -> tuple[str, ...]:
    """Return the names that a parameter may have in torch's module."""
    layer, _, kind = name.partition(".")
    return (f"in_proj_{kind}", f"{layer}_{kind}") if layer in INPUTS else ()


def _added(mask: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return a mask as numbers to add: those of a mask of truths are -inf where it is true."""
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -torch.inf) if mask.dtype == torch.bool else mask
