"""A package around a tiny graph: its engine is built and run by ONNX Runtime, what a report needs is invented."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tiny_report import story

from bonsai.profiles.loader import load_profile
from bonsai.profiles.schema import HardwareProfile, Target
from bonsai.stages.backends.engine import Engine
from bonsai.stages.backends.machine import Machine
from bonsai.stages.backends.registry import backend_of, check_target
from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.delivery.compatibility import Compatibility, compatibility_of
from bonsai.stages.delivery.contents import CARD, FIGURE, PackageManifest, seal
from bonsai.stages.delivery.golden import write_golden
from bonsai.stages.delivery.packed_facts import PackagedEngine
from bonsai.stages.delivery.predict.network import TEST_SAMPLES
from bonsai.stages.delivery.predict.text import PREDICT, predict_text
from bonsai.stages.graph.names import INPUT
from bonsai.stages.store.manifest import MANIFEST

OUTPUT = "logits"
SHAPE, CLASSES = (1, 8, 8), ("circle", 'square "s"', "line")
Edit = Callable[[dict[str, object]], object]


def needs(profile: str = "local-cpu", **device: object) -> Compatibility:
    """Return what an engine of a profile needs that was built where `device` says."""
    target = load_profile(profile).target
    facts = {"device": target.device.name, "isa": target.device.isa, "cores": 8, "system": "Linux x86_64", "runtime": target.runtime, "present": False}
    engine = Engine.model_validate({**engine_facts(target), "info": {**facts, "runtime_version": "10.3.0", **device}})
    return compatibility_of(engine, target, target.runtime, most_images=target.batch)


def engine_facts(target: Target) -> dict[str, object]:
    facts = {"folder": Path(), "file": "engine.onnx", "runtime": target.runtime, "precision": target.precision, "dialect": "float", "image_shape": SHAPE}
    return {**facts, "parameters": 0, "macs": 0, "coverage": {}, "runnable": True}


def a_machine(**facts: object) -> Machine:
    return Machine.model_validate(
        {"system": "Linux", "architecture": "x86_64", "cpu": "some CPU", "isa": ("avx2", "avx512f", "avx512_vnni"), "cores": 8, **facts}
    )


def make_package(folder: Path, profile: HardwareProfile | None = None) -> Path:
    """Write a package as `bonsai run` seals it: for a profile whose device is this machine's, by default its CPU."""
    profile = profile or load_profile("local-cpu", {"target.precision": "fp32"})
    target, backend, info = profile.target, backend_of(profile.target), check_target(profile.target)
    write_graph(folder / "model.onnx")
    coverage = backend.build(folder / "model.onnx", folder / backend.engine_file, target, SHAPE)
    engine = Engine.model_validate({**engine_facts(target), "file": backend.engine_file, "info": info, "coverage": coverage})
    images = np.random.default_rng(0).standard_normal((3, *SHAPE)).astype(np.float32)
    write_golden(folder, images, partial(map, backend.open_engine(folder / engine.file, target)), OUTPUT)
    (folder / CARD).write_text("# tiny\n")
    (folder / FIGURE).write_text("<svg/>\n")
    (folder / PREDICT).write_text(predict_text())
    (folder / TEST_SAMPLES).write_text("")
    seal(
        folder,
        PackageManifest(
            name=f"tiny--{profile.name}",
            engine=PackagedEngine(
                file=engine.file,
                graph="model.onnx",
                runtime=target.runtime,
                precision="fp32",
                dialect="float",
                image_shape=SHAPE,
                coverage=coverage,
                run_here=True,
            ),
            compatibility=compatibility_of(engine, target, backend.package, most_images=target.batch),
            golden="engine",
            device=info,
            tools={},
            classes=CLASSES,
            preprocess=Preprocess.of(SHAPE),
            **story(profile),
        ),
    )
    return folder


def reseal(folder: Path, edit: Edit | None = None) -> None:
    """Change what a package's manifest says and make all sums right again, as one would who means it."""
    facts = json.loads((folder / MANIFEST).read_text())
    if edit is not None:
        edit(facts)
    seal(folder, PackageManifest.model_validate({**facts, "files": {}}))


def make_older(folder: Path) -> None:
    """Turn a package into one of a version that knew no `predict.py`."""
    (folder / PREDICT).unlink()
    (folder / TEST_SAMPLES).unlink()
    reseal(folder, lambda facts: facts.pop("preprocess"))


def ask(facts: Any, profile: HardwareProfile) -> None:
    """Let a manifest tell that the package was made for another profile."""
    facts["profile"] = profile.model_dump(mode="json")
    facts["engine"]["runtime"] = profile.target.runtime


def write_graph(file: Path, *, divides: bool = False, shape: tuple[int, ...] = SHAPE) -> None:
    """Write a convolution and a product to three logits; or one that divides the smallest integer by -1, which no x86 can: SIGFPE."""
    tensors = np.random.default_rng(1)
    weights = {"kernel": tensors.standard_normal((16, 1, 3, 3)), "matrix": tensors.standard_normal((16, 3))}
    nodes = [
        helper.make_node("Conv", [INPUT, "kernel"], ["maps"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["product" if divides else OUTPUT]),
    ]
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    if divides:
        nodes += [
            helper.make_node("Cast", ["product"], ["whole"], to=TensorProto.INT64),
            helper.make_node("Mul", ["whole", "zero"], ["none"]),
            helper.make_node("Add", ["none", "smallest"], ["dividend"]),
            helper.make_node("Div", ["dividend", "minus one"], ["quotient"]),
            helper.make_node("Cast", ["quotient"], [OUTPUT], to=TensorProto.FLOAT),
        ]
        values = {"zero": 0, "smallest": np.iinfo(np.int64).min, "minus one": -1}
        constants += [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in values.items()]
    images = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", *shape])
    logits = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", len(CLASSES)])
    graph = helper.make_graph(nodes, "tiny", [images], [logits], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), file)
