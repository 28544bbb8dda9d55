"""A package of a small INT8 network, made without torch: a residual block of four convolutions and a linear layer, random but calibrated."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file
from tiny_package import CLASSES, OUTPUT, SHAPE, make_package, reseal

from bonsai.profiles.loader import load_profile
from bonsai.stages.backends.registry import backend_of
from bonsai.stages.delivery.contents import PackageManifest
from bonsai.stages.delivery.golden import write_golden
from bonsai.stages.explanation.tensors import Host
from bonsai.stages.graph.names import INPUT
from bonsai.stages.store.manifest import MANIFEST

IMAGES = np.random.default_rng(3).standard_normal((3, *SHAPE)).astype(np.float32)
CONVOLUTIONS = {"stem": (16, 1), "block.conv1": (16, 16), "block.conv2": (16, 16), "head": (24, 16)}
"""Outputs and inputs of each, in order; the second and third are the block."""
OPSET = 18


def make_quantised_package(folder: Path, *, learnt: bool = True, profile: str = "local-cpu") -> Path:
    """Write a sealed package for this machine's CPU; with `learnt` it holds what the network learnt, as `bonsai run` leaves it."""
    make_package(folder, load_profile(profile, {"target.precision": "fp32"}))
    tensors = random_network()
    plain = {name: value for name, value in tensors.items() if not name.endswith((".scale", ".zero_point"))}
    values = Host(build(plain, None), [f"{name}.out" for name in ("stem", "block.conv1", "block.conv2", "sum", "head", "pool")]).run(IMAGES)
    for name, value in {"x": IMAGES, **{name.removesuffix(".out"): value for name, value in values.items()}}.items():
        low, high = min(float(value.min()), 0.0), float(value.max())
        tensors[f"quantize_{name.replace('.', '_')}.scale"] = np.float32((high - low) / 255)
        tensors[f"quantize_{name.replace('.', '_')}.zero_point"] = np.int64(round(-low / (high - low) * 255))
    if learnt:
        save_file({name: np.asarray(value) for name, value in tensors.items()}, folder / "network.safetensors")
        edits = [{"kind": "quantizers", "dialect": "ort", "weight_bits": 8, "kept_float": []}]
        (folder / "network.json").write_text(json.dumps({"edits": edits}))
    onnx.save(build(plain, tensors), folder / "model.onnx")
    reseal(folder, say_int8)
    rebuild(folder)
    return folder


def rebuild(folder: Path, images: np.ndarray = IMAGES) -> None:
    """Make the engine and the golden outputs of the model.onnx that is there, and seal."""
    target = PackageManifest.model_validate_json((folder / MANIFEST).read_bytes()).profile.target
    backend = backend_of(target)
    backend.build(folder / "model.onnx", folder / backend.engine_file, target, images.shape[1:])
    write_golden(folder, images, partial(map, backend.open_engine(folder / backend.engine_file, target)), OUTPUT)
    reseal(folder)


def random_network() -> dict[str, np.ndarray]:
    """Return weights, biases and scales of weights by the names that a quantised network has them by."""
    drawn = np.random.default_rng(1)
    tensors = {}
    for name, (outputs, inputs) in CONVOLUTIONS.items():
        tensors[f"{name}.conv.weight"] = (drawn.standard_normal((outputs, inputs, 3, 3)) * (2 / (9 * inputs)) ** 0.5).astype(np.float32)
        tensors[f"{name}.conv.bias"] = (0.3 * drawn.standard_normal(outputs)).astype(np.float32)
    tensors["fc.linear.weight"] = drawn.standard_normal((len(CLASSES), 24)).astype(np.float32)
    tensors["fc.linear.bias"] = drawn.standard_normal(len(CLASSES)).astype(np.float32)
    for name in (*CONVOLUTIONS, "fc"):
        weight = tensors[f"{name}.{'linear' if name == 'fc' else 'conv'}.weight"]
        tensors[f"{name}.weight_quantizer.scale"] = (np.abs(weight).reshape(len(weight), -1).max(axis=1) / 127).astype(np.float32)
    return tensors


def build(plain: dict[str, np.ndarray], grids: dict[str, np.ndarray] | None) -> onnx.ModelProto:
    """Return the network, in float where there are no grids; tensors are called as an export calls them."""
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, np.ndarray] = {}

    def rounded(tensor: str, quantizer: str) -> str:
        if grids is None:
            return tensor
        names = [f"quantize_{quantizer}.scale", f"quantize_{quantizer}.zero_point"]
        constants[names[0]], constants[names[1]] = np.float32(grids[names[0]]), np.uint8(grids[names[1]])
        nodes.append(helper.make_node("QuantizeLinear", [tensor, *names], [f"{tensor}.int"], name=f"{tensor}.round"))
        nodes.append(helper.make_node("DequantizeLinear", [f"{tensor}.int", *names], [f"{tensor}.rounded"], name=f"{tensor}.restore"))
        return f"{tensor}.rounded"

    def weight(name: str) -> str:
        value = plain[f"{name}.{'linear' if name == 'fc' else 'conv'}.weight"]
        if grids is None:
            constants[f"{name}.weight"] = value
            return f"{name}.weight"
        scale = grids[f"{name}.weight_quantizer.scale"]
        constants[f"{name}.weight"] = np.clip(np.round(value / scale.reshape(-1, *[1] * (value.ndim - 1))), -127, 127).astype(np.int8)
        constants[f"{name}.scale"], constants[f"{name}.zero_point"] = scale, np.zeros(len(scale), np.int8)
        inputs = [f"{name}.{part}" for part in ("weight", "scale", "zero_point")]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}.weights"], name=f"{name}.weights", axis=0))
        return f"{name}.weights"

    def convolved(name: str, tensor: str, *, relu: bool = True) -> str:
        constants[f"{name}.bias"] = plain[f"{name}.conv.bias"]
        end = f"{name}.sum" if relu else f"{name}.out"
        nodes.append(helper.make_node("Conv", [tensor, weight(name), f"{name}.bias"], [end], name=f"node_{name}", pads=[1, 1, 1, 1]))
        if relu:
            nodes.append(helper.make_node("Relu", [end], [f"{name}.out"], name=f"node_{name}.relu"))
        return rounded(f"{name}.out", name.replace(".", "_"))

    stem = convolved("stem", rounded(INPUT, "x"))
    block = convolved("block.conv2", convolved("block.conv1", stem), relu=False)
    nodes.append(helper.make_node("Add", [block, stem], ["sum.raw"], name="node_add"))
    nodes.append(helper.make_node("Relu", ["sum.raw"], ["sum.out"], name="node_add.relu"))
    head = convolved("head", rounded("sum.out", "sum"))
    nodes.append(helper.make_node("GlobalAveragePool", [head], ["pool.out"], name="node_pool"))
    nodes.append(helper.make_node("Flatten", [rounded("pool.out", "pool")], ["flat"], name="node_flatten"))
    constants["fc.bias"] = plain["fc.linear.bias"]
    bias = "fc.bias"
    if grids is not None:
        scale = grids["fc.weight_quantizer.scale"] * grids["quantize_pool.scale"]
        constants["fc.bias"], constants["fc.bias_scale"] = np.round(plain["fc.linear.bias"] / scale).astype(np.int32), scale.astype(np.float32)
        nodes.append(helper.make_node("DequantizeLinear", ["fc.bias", "fc.bias_scale"], ["fc.biases"], name="fc.biases", axis=0))
        bias = "fc.biases"
    nodes.append(helper.make_node("Gemm", ["flat", weight("fc"), bias], [OUTPUT], name="node_fc", transB=1))
    images = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", *SHAPE])
    logits = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", len(CLASSES)])
    graph = helper.make_graph(nodes, "tiny", [images], [logits], [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def say_int8(facts: dict[str, object]) -> None:
    """Let a manifest tell of an INT8 engine for ONNX Runtime."""
    for part in ("engine", "profile"):
        assert isinstance(facts[part], dict)
    facts["engine"] |= {"precision": "int8", "dialect": "ort"}  # type: ignore[operator]
    facts["profile"]["target"]["precision"] = "int8"  # type: ignore[index]
