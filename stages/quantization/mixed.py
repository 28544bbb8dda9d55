"""Finds a small set of layers to keep in float if a network with all layers in INT8 is not accurate enough."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import fx, nn

from bonsai.stages.graph.trace import module_of, trace
from bonsai.stages.networks.edits.records import Quantizers
from bonsai.stages.networks.loading import load_weights
from bonsai.stages.quantization.calibrate import calibrate, settle_batchnorm
from bonsai.stages.quantization.config import MixedConfig
from bonsai.stages.quantization.insert import quantise_graph
from bonsai.stages.quantization.layers import QuantConvolution, QuantLinear
from bonsai.stages.quantization.records import Sensitivity, Weights
from bonsai.stages.quantization.sensitivity import Layers, scan_layers
from bonsai.stages.quantization.taking import name_of
from bonsai.stages.tasks.task import Learning, Task
from bonsai.stages.training.progress import say


class Start(NamedTuple):
    """Weights and scales that a search starts from.

    Attributes:
        weights: Whether they were only calibrated or also fine-tuned.
        state: The `state_dict` of the quantised network.
    """

    weights: Weights
    state: Mapping[str, torch.Tensor]


class Mixer:
    """Builds the quantised network again with more layers in float, and adapts scales and statistics.

    A layer that INT8 breaks also spoils the calibration of the layers behind it, so calibrated scales are calibrated again. Learned scales are
    kept. Then BatchNorm statistics are computed again, because those from training were measured with quantised weights.

    Args:
        twin: The float network from which `insert_quantizers` made `quantised`; it shares its weights.
        quantised: Gets the weights and scales of a start.
        image_shape: (channels, height, width).
        quantizers: The quantisers of `quantised`.
        batches: Images (n, c, h, w) float32 of the training split, for scales and statistics.
    """

    def __init__(
        self,
        twin: nn.Module,
        quantised: fx.GraphModule,
        image_shape: tuple[int, ...],
        quantizers: Quantizers,
        batches: Sequence[torch.Tensor],
    ) -> None:
        self._twin, self._quantised, self._quantizers = twin, quantised, quantizers
        self._batches = batches
        self._copy = copy.deepcopy(twin).cpu()
        self._traced = trace(self._copy, image_shape)  # shares the copy's modules

    @property
    def layers(self) -> Layers:
        """The layers that are quantised, in the order of execution."""
        targets = (str(node.target) for node in self._quantised.graph.nodes if isinstance(module_of(self._quantised, node), QuantConvolution | QuantLinear))
        return tuple(dict.fromkeys(targets))

    def quantizers(self, layers: Layers) -> Quantizers:
        """Return the quantisers where these layers stay in float too."""
        kept = {*self._quantizers.kept_float, *layers}
        in_order = dict.fromkeys(name_of(node) for node in self._traced.graph.nodes)
        return self._quantizers.model_copy(update={"kept_float": tuple(name for name in in_order if name in kept)})

    def network(self, start: Start, layers: Layers) -> fx.GraphModule:
        """Return the network, on the device of the first, where these layers stay in float too."""
        load_weights(self._quantised, start.state)
        self._copy.load_state_dict(self._twin.state_dict())
        made = quantise_graph(copy.deepcopy(self._traced), self.quantizers(layers))
        for name, module in made.named_modules():
            if getattr(module, "holds_scales", False):
                module.load_state_dict(self._quantised.get_submodule(name).state_dict())
        made.to(next(self._quantised.parameters()).device)
        if start.weights == "ptq":
            calibrate(made, self._batches)
        else:
            settle_batchnorm(made, self._batches)
        return made


class Judge(Protocol):
    """A phase of training."""

    @property
    def task(self) -> Task:
        """The task, whose metric judges the networks."""
        ...

    @property
    def learning(self) -> Learning:
        """Measures how much a layer's quantisation changes the outputs (`Learning.noise`)."""
        ...

    def validate(self, network: nn.Module) -> float:
        """Return the metric on the validation split."""
        ...


class Search(NamedTuple):
    """Result of a search for layers to keep in float.

    Attributes:
        start: Weights and scales that the search started from.
        layers: Layers to keep in float, the most sensitive first. Empty if even `max_layers` layers are not enough.
        reached: The metric on the validation split with these layers in float, or with `max_layers` if they are not enough.
        sensitivities: Sensitivity of every layer, the most sensitive first.
    """

    start: Start
    layers: Layers
    reached: float
    sensitivities: tuple[Sensitivity, ...]

    @property
    def outcome(self) -> dict[str, object]:
        """The fields that it changes in the record of a quantisation."""
        weights = self.start.weights
        return {"kept": "mixed" if self.layers else weights, "weights": weights, "searched": self.layers, "sensitivities": self.sensitivities}


def search_layers(
    mixer: Mixer,
    starts: Sequence[Start],
    reference: nn.Module,
    images: torch.Tensor,
    config: MixedConfig,
    judge: Judge,
    suffices: Callable[[float], bool],
) -> Search:
    """Measure how sensitive every layer is, and find a small set to keep in float.

    Args:
        mixer: Builds the networks.
        starts: Starting points, the better one first. The next is tried if the search from the first fails: weights that fine-tuning has
            changed a lot may not be good in float.
        reference: The float network.
        images: (n, c, h, w) float32 of the training split, to measure sensitivities with.
        config: The most layers that may be float.
        judge: Judges networks on the validation split.
        suffices: Returns whether a value of the metric is good enough.
    """
    searches = []
    for start in starts:
        searches.append(_search(mixer, start, reference, images, config, judge, suffices))
        if searches[-1].layers:
            return searches[-1]
    return searches[0]


def _search(
    mixer: Mixer,
    start: Start,
    reference: nn.Module,
    images: torch.Tensor,
    config: MixedConfig,
    judge: Judge,
    suffices: Callable[[float], bool],
) -> Search:
    sensitivities = scan_layers(mixer.layers, lambda layers: mixer.network(start, layers), reference, images, judge.learning)
    ranked = tuple(found.layer for found in sensitivities)[: config.max_layers]
    tried: dict[Layers, float] = {}

    def enough(layers: Layers) -> bool:
        tried[layers] = judge.validate(mixer.network(start, layers))
        say(f"{start.weights}: validation {judge.task.metric.label} {tried[layers]:.4f} with {len(layers)} in float: {', '.join(layers)}")
        return suffices(tried[layers])

    found = fewest_layers(ranked, enough)
    return Search(start, found, tried[found or ranked], sensitivities)


def fewest_layers(ranked: Layers, suffices: Callable[[Layers], bool]) -> Layers:
    """Return layers that are enough together and none of which can be left out; empty if even all layers are not enough.

    The shortest sufficient prefix is found by bisection, which assumes that a longer one is not worse. Then its layers are left
    out one by one, the least sensitive first, if the rest is still enough. `suffices` is called at most log2(n) + n + 1 times.

    Args:
        ranked: Layers, the one that gains most first; at least one.
        suffices: Whether the network with these layers in float is good enough; with none it is not.
    """
    if not suffices(ranked):
        return ()
    misses, meets = 0, len(ranked)  # lengths of prefixes
    while meets - misses > 1:
        middle = (misses + meets) // 2
        if suffices(ranked[:middle]):
            meets = middle
        else:
            misses = middle
    kept = ranked[:meets]
    for layer in reversed(kept[:-1]):  # without the last the prefix misses, as is known
        fewer = tuple(name for name in kept if name != layer)
        if suffices(fewer):
            kept = fewer
    return kept
