"""From a network in hand to an engine that was tried and compared with torch."""

from typing import NamedTuple

import numpy as np
import torch

from bonsai.pipeline.loop.exporting import InHand, Specs, closeness, export, torch_outputs
from bonsai.profiles.schema import Target
from bonsai.stages.backends.devices import device_of
from bonsai.stages.backends.engine import DeviceInfo, Engine
from bonsai.stages.delivery.deployed import Closeness
from bonsai.stages.graph.config import ExportConfig
from bonsai.stages.steps.compile import compile as compile_engine
from bonsai.stages.store.store import Step
from bonsai.stages.training.progress import say


class Built(NamedTuple):
    """A network in hand with its engine.

    Attributes:
        graph_parity: How far the ONNX file is from torch on the samples.
        engine_parity: How far the engine is.
    """

    hand: InHand
    engine: Engine
    graph_parity: tuple[Closeness, ...]
    engine_parity: tuple[Closeness, ...]


def build(hand: InHand, target: Target, info: DeviceInfo, specs: Specs, samples: torch.Tensor, config: ExportConfig, step: Step) -> Built:
    """Export a network and build its engine, which runs in a process of its own first.

    Args:
        hand: The network.
        target: At the precision of the engine.
        info: The machine.
        specs: Inputs and outputs of the file.
        samples: (n, ...) float32, several inputs joined, which file and engine are compared with torch on.
        config: Opset, batch and limits of that comparison.
        step: Runs the stages.

    Raises:
        BuildError: The network cannot be exported or built, or the engine does not run.
    """
    graph, graph_parity = export(hand, samples, target, specs, config, step)
    engine = step(compile_engine, graph=graph, target=target, info=info)
    found = np.concatenate(list(device_of(target).run(engine.for_target(target), [samples.numpy()], untried=True)))
    engine_parity = closeness(found, torch_outputs(hand, samples), specs.outputs)
    differs = ", ".join(f"{each.output} by {each.mean:.2%} of its spread" for each in engine_parity)
    say(f"{target.precision} engine built: {engine.parameters / 1e3:.0f} k parameters; its outputs differ from torch's: {differs}")
    return Built(hand, engine, graph_parity, engine_parity)
