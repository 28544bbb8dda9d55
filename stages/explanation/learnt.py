"""What the network learnt: its weights before and after rounding, and its grids, as the package's ``network.safetensors`` holds them. Without torch."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load_file

from bonsai.profiles.bounded_json import read_json
from bonsai.stages.explanation.probing import Grid

WEIGHTS, RECORD = "network.safetensors", "network.json"
EPSILONS = (1e-5, 1e-3, 1e-6, 1e-4, 1e-12)
"""A BatchNorm's epsilon is not stored. The one counts with which a layer is most like the ONNX file's; a layer that is at fault is like none."""


class LearntLayer(NamedTuple):
    """One layer with weights.

    Attributes:
        weight: In float, with the BatchNorm behind it folded in, in the layout of the network.
        bias: (out,); None if it has none.
        rounded: The same weights as INT8 holds them.
    """

    weight: np.ndarray
    bias: np.ndarray | None
    rounded: np.ndarray


class Learnt(NamedTuple):
    """What a quantised network learnt.

    Attributes:
        tensors: As they are stored.
        bits: Width of the weights.
        dialect: The runtime family whose grids are stored.
    """

    tensors: dict[str, np.ndarray]
    bits: int
    dialect: str

    def layer(self, name: str, like: np.ndarray, *, transposed: bool = False) -> LearntLayer | None:
        """Return a quantised layer; None if the network has none of this name.

        Args:
            name: Name of the layer.
            like: Weights of the ONNX file, by which the epsilon of a BatchNorm is found.
            transposed: Whether it is a transposed convolution, which has its outputs on the second side.
        """
        scale = self.tensors.get(f"{name}.weight_quantizer.scale")
        inner = next((kind for kind in ("conv", "linear") if f"{name}.{kind}.weight" in self.tensors), None)
        if scale is None or inner is None:
            return None
        axis = 1 if transposed else 0
        weight, bias = self.tensors[f"{name}.{inner}.weight"], self.tensors.get(f"{name}.{inner}.bias")
        if len(self.tensors.get(f"{name}.bn.weight", scale)) != len(scale):
            return None  # a transposed convolution of several groups has one scale for a channel of each group
        found = (self._rounded(name, weight, bias, np.abs(scale), axis, epsilon) for epsilon in EPSILONS)
        return min(found, key=lambda each: _apart(each.rounded, like))

    def names(self, layer: str) -> bool:
        """Whether the network has a layer or module of this name; one that is called several times has other names in the file."""
        plain = layer.partition("_of_")[0]
        return any(name.startswith(f"{layer}.") or name.replace(".", "_").startswith(f"{plain}_") for name in self.tensors)

    def grid(self, quantizer: str) -> Grid | None:
        """Return what a quantiser of activations learnt; None if there is none of this name."""
        scale, zero_point = (self.tensors.get(f"{quantizer}.{part}") for part in ("scale", "zero_point"))
        return None if scale is None or zero_point is None else Grid(abs(float(scale)), int(zero_point))

    def _rounded(self, name: str, weight: np.ndarray, bias: np.ndarray | None, scale: np.ndarray, axis: int, epsilon: float) -> LearntLayer:
        along = [-1 if place == axis else 1 for place in range(weight.ndim)]
        if f"{name}.bn.running_var" in self.tensors:
            gamma, beta, mean, variance = (self.tensors[f"{name}.bn.{part}"] for part in ("weight", "bias", "running_mean", "running_var"))
            ratio = gamma / np.sqrt(variance + np.float32(epsilon))
            weight = weight * ratio.reshape(along)
            bias = beta - (mean if bias is None else mean - bias) * ratio
        high = 2 ** (self.bits - 1) - 1
        rounded = np.clip(np.round(weight / scale.reshape(along)), -high, high) * scale.reshape(along)
        return LearntLayer(weight, bias, rounded.astype(np.float32))


def read_learnt(folder: Path) -> Learnt | None:
    """Return what the quantised network of a package learnt; None if the package does not hold it, or if it is in float."""
    if not (folder / WEIGHTS).is_file() or not (folder / RECORD).is_file():
        return None
    edits = read_json(folder / RECORD).get("edits", [])
    quantizers = next((edit for edit in edits if edit["kind"] == "quantizers"), None)
    return None if quantizers is None else Learnt(load_file(folder / WEIGHTS), int(quantizers["weight_bits"]), str(quantizers["dialect"]))


def _apart(found: np.ndarray, like: np.ndarray) -> float:
    return float(np.abs(found - like).sum()) if found.shape == like.shape else float("inf")
