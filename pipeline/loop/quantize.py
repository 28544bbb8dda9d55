"""Simulated quantisation of a network in hand."""

from collections.abc import Iterable, Sequence

import torch
from torch import fx, nn

from bonsai.pipeline.loop.batches import inputs_in
from bonsai.pipeline.loop.in_hand import Example, form_of, profile_of, require_bare, require_float32, require_no_graph
from bonsai.pipeline.loop.outputs import join_outputs, output_form, separate_graph
from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.backends.devices import device_of
from bonsai.stages.backends.runtimes import graph_form
from bonsai.stages.backends.runtimes import weight_bits as bits_of
from bonsai.stages.graph.parting import part_inputs
from bonsai.stages.graph.trace import trace
from bonsai.stages.networks.calling import copy_network
from bonsai.stages.networks.edits.fusing import fuse, fusion_of, require_same_fused
from bonsai.stages.networks.edits.records import Quantizers
from bonsai.stages.networks.packed_inputs import pack_inputs, packed_shape
from bonsai.stages.quantization.calibrate import calibrate
from bonsai.stages.quantization.insert import quantise_graph, quantizers_of
from bonsai.stages.quantization.keeping import layers_to_keep
from bonsai.stages.quantization.proof import prove_quantizable, require_same
from bonsai.stages.training.progress import say

COMPARED = 8
"""Most samples on which the quantised network, with its quantisers switched off, is compared with the float one."""
LEAST = 3
"""Fewest samples that such a comparison needs."""


def quantize(
    model: nn.Module,
    example_input: Example,
    *,
    calibration: Iterable[object],
    target: str = "local-cpu",
    keep_float: Sequence[str] = (),
    batches: int = 8,
    weight_bits: int | None = None,
) -> fx.GraphModule:
    """Return a copy of a network that computes as the target's INT8 engine will, calibrated and ready to be fine-tuned.

        model = bonsai.quantize(model, images, calibration=loader)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.001)   # the old optimizer holds the float network's parameters

    The given network is left as it was. Fine-tune the copy in FP32, in the same loop, or hand it to `bonsai.deploy` as it is.

    Args:
        model: Trained float network, on any device. Pass the bare module, not a wrapped or compiled one.
        example_input: A batch as the network gets it, as for `bonsai.deploy`: a tensor, or a tuple or dict of tensors.
        calibration: Batches to calibrate the scales on: tensors (n, ...), or tuples, lists or dicts whose first tensor of that shape is the input. For a
            network of several inputs tuples or dicts of them, alone or first in a tuple.
        target: Name of a profile, or the path of a file. Its runtime decides which operations become INT8.
        keep_float: Globs over names of layers, or of modules that contain them; these stay in float.
        batches: Most batches of `calibration` to use.
        weight_bits: 8, 7, or None for what the target's instructions need.

    Returns:
        A graph module on the model's device, in its mode, with the model's inputs and outputs; a named tuple becomes a tuple.

    Raises:
        ConfigError: The network cannot be traced, nothing of it can be quantised, a glob matches nothing, or the batches do not fit it.
        DeviceUnavailable: The runtime is not installed.
    """
    network, inputs = require_bare(model, "the model"), form_of(example_input)
    require_no_graph(network, inputs)
    _require_fit(network, batches, weight_bits)
    profile = profile_of(target, latency=None, latency_ms=None, precision="int8")
    dialect = graph_form(profile.target).dialect
    bits = weight_bits or bits_of(profile.target, device_of(profile.target).describe(profile.target))
    images = inputs_in(calibration, inputs, "calibration", most=batches)
    compared = torch.cat(images)[:COMPARED]
    if len(compared) < LEAST:
        fix = "yield more samples, or raise `batches`"
        raise ConfigError(describe("calibration has too few samples", given=len(compared), allowed=f"{LEAST} or more; hundreds are usual", fix=fix))
    device = next(network.parameters()).device
    shape = packed_shape(inputs)
    float_network = pack_inputs(copy_network(network).cpu(), inputs)
    fusion = fusion_of(float_network)
    if fusion is not None:
        require_same_fused(float_network, fusion, compared)
        fuse(float_network, fusion)
    form = output_form(float_network, shape)
    reference = join_outputs(float_network, form)
    left = prove_quantizable(reference, shape, keep_float, [dialect])
    state = Quantizers(dialect=dialect, weight_bits=bits, kept_float=layers_to_keep(reference, keep_float, shape))
    traced = trace(copy_network(reference), shape)
    separate_graph(traced, form)
    part_inputs(traced, inputs)
    quantised = quantise_graph(traced, state)
    require_same(reference, join_outputs(pack_inputs(quantised, inputs), form), compared)
    quantised.to(device)
    calibrate(pack_inputs(quantised, inputs), [each.to(device) for each in images])
    others = [name for name in left if name.split(" ")[0] not in state.kept_float]
    say(f"quantised for {profile.target.runs_on} with {sum(map(len, images))} samples; left in float: {', '.join((*state.kept_float, *others)) or 'nothing'}")
    return quantised.train(network.training)


def _require_fit(network: nn.Module, batches: int, weight_bits: int | None) -> None:
    require_float32(network, "the model")
    if quantizers_of(network) is not None:
        problem, fix = "the model is quantised already", "pass the float network"
        raise ConfigError(describe(problem, given=type(network).__name__, allowed="a float network", fix=fix))
    if batches < 1 or weight_bits not in (None, 7, 8):
        fix = "leave them out: 8 batches, and the bits that the target needs"
        raise ConfigError(
            describe("a setting is not allowed", given=f"{batches=}, {weight_bits=}", allowed="batches of 1 or more; weight_bits of 7, 8 or None", fix=fix)
        )
