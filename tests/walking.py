"""A hard network on its way from inspection to a file that ONNX Runtime runs, and what was told of it."""

import copy
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import onnx
import torch
from torch import nn
from torch.nn import functional

from bonsai.pipeline.recipes.recipe import Recipe, load_recipe
from bonsai.pipeline.run.inspecting import inspect_network
from bonsai.profiles.errors import ConfigError
from bonsai.stages.backends.reference import open_graph
from bonsai.stages.graph.exporting import write_graph
from bonsai.stages.graph.names import MODEL
from bonsai.stages.graph.onnx_graph import Dialect
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.edits.records import Quantizers
from bonsai.stages.networks.registry import build_network
from bonsai.stages.quantization.calibrate import calibrate
from bonsai.stages.quantization.export_form import count_quantised, to_export_form
from bonsai.stages.quantization.insert import insert_quantizers
from bonsai.stages.tasks.classification.judging import CLASSIFICATION
from bonsai.stages.training.evaluation import evaluate

TINY = Path(__file__).parent / "integration" / "configs" / "tiny.yaml"
CLASSES = 10
RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Dropout", "Multinomial"}
MOVES = {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"}
NOISE, PARITY, EXACT = 0.35, 0.15, 0.01
"""Largest mean difference of logits, by how much they vary between images: of INT8 from float, of a Q/DQ file from the simulated INT8 network, of a
float file from torch."""


class Told(NamedTuple):
    """What became of a network.

    Attributes:
        kind: ``refused`` before any training, ``left whole`` (some of its groups), ``float`` (some of its layers), ``works``.
        message: What Bonsai says of it.
    """

    kind: Literal["refused", "left whole", "float", "works"]
    message: str = ""


class Said(logging.Handler):
    """Collects what Bonsai says."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def __enter__(self) -> "Said":
        logger = logging.getLogger("bonsai")
        logger.setLevel(logging.INFO)
        logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("bonsai").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def model_of(name: str, options: Mapping[str, Any] | None = None) -> ModelConfig:
    """Return the config of a hard network; a name without a module is one of `hard_networks`."""
    return ModelConfig(name=name if ":" in name else f"hard_networks:{name}", options=dict(options or {}))


def recipe_for(model: ModelConfig, overrides: Mapping[str, Any]) -> Recipe:
    """Return the tests' small recipe for another network."""
    return load_recipe(str(TINY), overrides).model_copy(update={"model": model})


def inspected(name: str, options: Mapping[str, Any] | None = None, *, shape: tuple[int, int, int] = (3, 16, 16), **overrides: Any) -> Told:
    """Inspect a network as every run does before it trains, and return what was told; whatever is no message for the user is raised."""
    recipe = recipe_for(model_of(name, options), overrides)
    with Said() as said:
        try:
            inspect_network(recipe, shape, CLASSES, ("ort", "trt"))
        except ConfigError as error:
            return Told("refused", str(error))
    whole = [line for line in said.lines if "left whole" in line]
    return Told("left whole", "\n".join(whole)) if whole else Told("works", "\n".join(said.lines))


def simulated(name: str, options: Mapping[str, Any] | None = None, *, shape: tuple[int, int, int] = (3, 16, 16)) -> Told:
    """Inspect and quantise a network, and check that it still computes what it does in evaluation; nothing is exported."""
    return _walk(name, options, shape, files=())


def walked(name: str, options: Mapping[str, Any] | None = None, *, shape: tuple[int, int, int] = (3, 16, 16), float_too: bool = False) -> Told:
    """Do the same, then write the Q/DQ file, and the float file where asked, and check what ONNX Runtime makes of them."""
    return _walk(name, options, shape, files=("float", "ort") if float_too else ("ort",))


def _walk(name: str, options: Mapping[str, Any] | None, shape: tuple[int, int, int], files: tuple[Dialect, ...]) -> Told:
    """Take a network on its way; it is quantised in training mode, as the stage does it, and every form must be the network as it evaluates."""
    told = inspected(name, options, shape=shape)
    if told.kind == "refused":
        return told
    network = ready(build_network(model_of(name, options), shape, CLASSES), shape)
    quantised = insert_quantizers(copy.deepcopy(network).train(), shape, Quantizers(dialect="ort", weight_bits=8))
    calibrate(quantised, [pixels(32, shape, seed=1)])
    images, kept = pixels(24, shape, seed=2), pixels(24, shape, seed=2)
    with torch.no_grad():
        expected = network.eval()(images.clone())
        int8 = quantised.eval()(images.clone())
        assert torch.equal(int8, quantised(images.clone())), "the quantised network gives two answers to one question"
    assert distance(expected, int8) <= NOISE, f"the quantised network is another function: it differs by {distance(expected, int8):.0%}"
    evaluate(quantised, images, torch.zeros(len(images), dtype=torch.int64), CLASSIFICATION)
    assert torch.equal(images, kept), "the images were changed by those who looked at them"
    floats = 0
    for dialect in files:
        form, answer, most = (network.eval(), expected, EXACT) if dialect == "float" else (to_export_form(quantised, dialect), int8, PARITY)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / MODEL
            quantised_layers = 0 if dialect == "float" else count_quantised(form)
            write_graph(form, shape, file, opset=20, batch=None, dialect=dialect, float_type="fp32", quantised=quantised_layers)
            assert distance(answer, run_twice(file, images)) <= most, f"the {dialect} file is another function than the network that it was written from"
            floats, products = count_products(onnx.load(file)) if dialect == "ort" else (0, 0)
    return Told("float", f"{floats} of {products} products stay in float") if floats else told


def ready(network: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    """Return a network in training mode whose norms have seen images, so that logits vary between them."""
    network.train()
    with torch.no_grad():
        for seed in range(10, 25):
            network(pixels(16, shape, seed=seed))
    return network


def pixels(count: int, shape: tuple[int, int, int], *, seed: int) -> torch.Tensor:
    """Return smooth random images (count, c, h, w) float32, each of a contrast and a colour of its own."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, shape[0], 4, 4, generator=generator) + torch.randn(count, shape[0], 1, 1, generator=generator)
    return functional.interpolate(coarse, size=shape[1:], mode="bilinear")


def distance(expected: torch.Tensor, found: torch.Tensor) -> float:
    """Return the mean difference of logits (n, classes), by how much the expected ones vary between images."""
    return float((found - expected).abs().mean() / expected.std(0).mean())


def run_twice(file: Path, images: torch.Tensor) -> torch.Tensor:
    """Run a file in ONNX Runtime and return its logits, once it is sure that they are the same each time and for an image alone."""
    assert not {node.op_type for node in onnx.load(file).graph.node} & RANDOM, "the file draws random numbers"
    run = open_graph(file)
    found, again = (np.array(run(images.numpy())) for _ in range(2))
    assert np.array_equal(found, again)
    alone = np.concatenate([np.array(run(images[i : i + 1].numpy())) for i in range(3)])
    assert np.allclose(alone, found[:3], rtol=1e-3, atol=1e-3 * float(np.abs(found).max())), "an image alone gives other logits than in a batch"
    return torch.from_numpy(found)


def count_products(model: onnx.ModelProto) -> tuple[int, int]:
    """Return how many convolutions and matrix products of a Q/DQ file are in float, and how many there are."""
    producers = {name: node for node in model.graph.node for name in node.output}

    def quantised(name: str) -> bool:
        while name in producers and producers[name].op_type in MOVES:
            name = producers[name].input[0]
        return name in producers and producers[name].op_type == "DequantizeLinear"

    products = [node for node in model.graph.node if node.op_type in {"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum"}]
    return sum(not (quantised(node.input[0]) and quantised(node.input[1])) for node in products), len(products)
