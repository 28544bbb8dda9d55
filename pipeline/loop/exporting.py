"""From a network in hand to an ONNX file, compared with the network, in the store."""

import tempfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import fx, nn

from bonsai.pipeline.loop.in_hand import require_bare, require_float32
from bonsai.pipeline.loop.outputs import InOrder, join_outputs, output_form
from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.schema import Precision, Target
from bonsai.stages.backends.reference import open_graph
from bonsai.stages.backends.runtimes import graph_form
from bonsai.stages.delivery.deployed import Closeness, NetworkFacts
from bonsai.stages.errors import BuildError
from bonsai.stages.graph.config import ExportConfig
from bonsai.stages.graph.exporting import set_metadata, write_graph
from bonsai.stages.graph.names import MODEL
from bonsai.stages.graph.onnx_graph import OnnxGraph
from bonsai.stages.graph.randomness import require_repeatable
from bonsai.stages.networks.calling import copy_network, outputs_of
from bonsai.stages.networks.counting import count_macs, count_parameters
from bonsai.stages.networks.edits.fusing import fuse, fusion_of, require_same_fused
from bonsai.stages.networks.edits.records import Quantizers
from bonsai.stages.networks.forms import Form
from bonsai.stages.networks.held import structure_of
from bonsai.stages.networks.packed_inputs import pack_inputs, packed_shape
from bonsai.stages.quantization.export_form import count_quantised, to_export_form
from bonsai.stages.quantization.insert import quantizers_of
from bonsai.stages.steps.take_graph import GraphFile, take_graph
from bonsai.stages.store.artifact import sha256_file
from bonsai.stages.store.store import Step
from bonsai.stages.tasks.task import Difference, TensorSpec, separate


class Specs(NamedTuple):
    """What the exported file takes and returns."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class InHand(NamedTuple):
    """A network that a caller handed over, checked.

    Attributes:
        given: The caller's own module.
        network: A copy on the CPU in evaluation, fused where it has branches. It takes several inputs joined (`pack_inputs`), unless it is quantised.
        inputs: What it takes.
        form: What it returns.
        quantizers: How it is quantised; None for a float network.
        fused: Whether it had branches.
        facts: What identifies it.
    """

    given: nn.Module
    network: nn.Module
    inputs: Form
    form: Form
    quantizers: Quantizers | None
    fused: bool
    facts: NetworkFacts

    @property
    def packed(self) -> nn.Module:
        """The network, which takes several inputs joined, (n, total)."""
        return self.network if self.quantizers is None else pack_inputs(self.network, self.inputs)

    @property
    def joined(self) -> nn.Module:
        """The same with its outputs joined, (n, total)."""
        return join_outputs(self.packed, self.form)

    def precision(self, target: Target, asked: Precision | None) -> Precision:
        """Return the precision of the engine: INT8 for a quantised network, else a float one that the target has.

        Raises:
            ConfigError: The target does not have it, or the network is not of the kind that was asked for.
        """
        floats = [precision for precision in target.precisions if precision != "int8"]
        allowed = ["int8"] if self.quantizers is not None else floats
        own = "int8" if self.quantizers is not None else target.precision if target.precision != "int8" else target.reference
        found = asked or own
        if found not in allowed or found not in target.precisions:
            kind = "a quantised network" if self.quantizers is not None else "a float network"
            fix = "leave `precision` out; for INT8 pass what `bonsai.quantize` returned, for the same target"
            raise ConfigError(
                describe(f"{kind} has no engine of this precision on the target", given=found, allowed=[p for p in allowed if p in target.precisions], fix=fix)
            )
        return found


def take_in_hand(model: object, what: str, inputs: Form, samples: torch.Tensor) -> InHand:
    """Check a network and copy it.

    Args:
        model: The caller's network, on any device.
        what: Its name in messages.
        inputs: What it takes.
        samples: (n, ...) float32, several inputs joined: a network that has branches is compared with its fused form on them.

    Raises:
        ConfigError: It is wrapped, does not run on such samples, draws random numbers, or returns something else than tensors.
    """
    given = require_bare(model, what)
    require_float32(given, what)
    network = copy_network(given).cpu().eval()
    quantizers = quantizers_of(network)
    facts = NetworkFacts(
        name=type(given).__name__ if quantizers is None else "GraphModule", structure=_structure(network), weights=_weights(network), quantizers=quantizers
    )
    packed, shape = pack_inputs(network, inputs), packed_shape(inputs)
    fusion = fusion_of(packed) if quantizers is None else None
    if fusion is not None:
        require_same_fused(packed, fusion, samples)
        fuse(packed, fusion)
    form = output_form(packed, shape)
    require_repeatable(join_outputs(packed, form), shape)
    return InHand(given, packed if quantizers is None else network, inputs, form, quantizers, fusion is not None, facts)


def export(hand: InHand, samples: torch.Tensor, target: Target, specs: Specs, config: ExportConfig, step: Step) -> tuple[OnnxGraph, tuple[Closeness, ...]]:
    """Export a network for a target, and compare the file with it.

    Args:
        hand: The network.
        samples: (n, ...) float32, several inputs joined.
        target: At the precision of the engine.
        specs: The inputs and outputs of the file.
        config: Opset, batch and limits of the comparison.
        step: Runs stages.

    Raises:
        BuildError: The network cannot be exported, or the file computes something else.
        ConfigError: The network was quantised for another family of runtimes.
    """
    dialect, float_type = graph_form(target)
    exported, quantised = hand.network, 0
    if hand.quantizers is not None:
        if hand.quantizers.dialect != dialect:
            problem, fix = "the network was quantised for another family of runtimes", "quantise the float network again, for this target"
            raise ConfigError(describe(problem, given=hand.quantizers.dialect, allowed=f"{dialect}, for {target.runs_on}", fix=fix))
        assert isinstance(hand.network, fx.GraphModule)
        graph_module = to_export_form(hand.network, dialect, float_type)
        exported, quantised = pack_inputs(graph_module, hand.inputs), count_quantised(graph_module)
    shape = packed_shape(hand.inputs)
    with tempfile.TemporaryDirectory(prefix="bonsai-") as scratch:
        file = Path(scratch) / MODEL
        written = write_graph(
            exported if hand.form.kind == "tensor" else InOrder(exported, hand.form),
            shape,
            file,
            opset=config.opset,
            batch=config.batch_of(target),
            dialect=dialect,
            float_type=float_type,
            quantised=quantised,
            inputs=specs.inputs,
            outputs=specs.outputs,
            apart=True,
        )
        parity = closeness(np.concatenate([open_graph(file)(samples.numpy())]), torch_outputs(hand, samples), specs.outputs)
        require_close(parity, file.name, config)
        set_metadata(
            file, {"bonsai.dialect": dialect, "bonsai.float_type": float_type, "bonsai.structure": hand.facts.structure, "bonsai.weights": hand.facts.weights}
        )
        graph = step(
            take_graph,
            graph=GraphFile(
                file=file,
                sha256=sha256_file(file),
                dialect=dialect,
                float_type=float_type,
                opset=config.opset,
                image_shape=shape,
                audit=written.audit,
                not_simplified=written.not_simplified,
                parameters=count_parameters(hand.network),
                macs=count_macs(hand.joined, shape),
                fused=hand.fused,
            ),
        )
    return graph, parity


@torch.no_grad()
def torch_outputs(hand: InHand, samples: torch.Tensor) -> np.ndarray:
    """Return what torch makes of samples, outputs joined, float32."""
    return np.asarray(outputs_of(hand.joined, samples).numpy())


def closeness(found: np.ndarray, expected: np.ndarray, specs: Sequence[TensorSpec]) -> tuple[Closeness, ...]:
    """Return how far outputs lie from torch's, output by output.

    Raises:
        BuildError: They have another shape, or are no numbers.
    """
    if found.shape != expected.shape:
        raise BuildError(f"the outputs have shape {found.shape}, torch's {expected.shape}")
    pairs = zip(separate(found, specs).items(), separate(expected, specs).values(), strict=True)
    differences = {name: Difference.between(value, wanted, agreement=1.0) for (name, value), wanted in pairs}
    unclear = [name for name, each in differences.items() if not np.isfinite(each.largest)]
    if unclear:
        raise BuildError(f"the output {unclear[0]!r} is not finite on the samples")
    return tuple(
        Closeness(output=name, mean=each.mean / max(each.spread, 1e-12), largest=each.largest / max(each.peak, 1e-12)) for name, each in differences.items()
    )


def require_close(parity: Sequence[Closeness], what: str, config: ExportConfig) -> None:
    """Check a comparison with torch against the limit of exports.

    Raises:
        BuildError: An output differs by more.
    """
    for each in parity:
        if each.mean > config.max_mean_difference:
            raise BuildError(
                f"{what} does not follow the torch network: output {each.output!r} differs by {each.mean:.1%} of its spread on the samples "
                f"(at most {config.max_mean_difference:.1%})"
            )


def _structure(network: nn.Module) -> str:
    code = network.code if isinstance(network, fx.GraphModule) else ""
    return sha256(f"{structure_of(network)}{code}".encode()).hexdigest()


def _weights(network: nn.Module) -> str:
    digest = sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value.detach().numpy()).tobytes())
    return digest.hexdigest()
