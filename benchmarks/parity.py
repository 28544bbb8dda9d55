"""How closely engines follow the fake-quantised torch network, by network, dialect and what runs the file.

python benchmarks/parity.py      # results/parity.json; about three minutes

Random weights with the BatchNorm statistics of random images; calibrated on 64 images, compared on 256 others. The difference is the mean absolute
one of the logits over their standard deviation. A file for TensorRT is run by ONNX Runtime, as no GPU is needed for that; its engine is not run.
"""

import json
import tempfile
from pathlib import Path

import torch
from torch import nn

from bonsai.profiles.loader import load_profile
from bonsai.stages.backends.reference import open_graph
from bonsai.stages.backends.registry import backend_of
from bonsai.stages.backends.running import Run
from bonsai.stages.graph.exporting import write_graph
from bonsai.stages.graph.names import MODEL
from bonsai.stages.graph.onnx_graph import Dialect, FloatType
from bonsai.stages.graph.parity import compare
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.edits.records import Quantizers
from bonsai.stages.networks.registry import build_network
from bonsai.stages.quantization.calibrate import calibrate
from bonsai.stages.quantization.export_form import to_export_form
from bonsai.stages.quantization.insert import insert_quantizers
from bonsai.stages.store.manifest import host_facts
from bonsai.stages.tasks.classification.judging import CLASSIFICATION

RESULTS = Path(__file__).parent / "results" / "parity.json"
NETWORKS = ("resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "regnet_x_400mf", "densenet121")
SHAPE, CLASSES = (3, 64, 64), 10
PROFILES = {"onnxruntime": "local-cpu", "openvino": "local-cpu-openvino"}
FORMS: tuple[tuple[Dialect, FloatType], ...] = (("ort", "fp32"), ("trt", "fp16"))


def main() -> None:
    """Compare everything and write the results."""
    rows: list[dict[str, object]] = []
    for name in NETWORKS:
        torch.manual_seed(0)
        network = settled(build_network(ModelConfig(name=name), SHAPE, CLASSES))
        for dialect, float_type in FORMS:
            made = insert_quantizers(network, SHAPE, Quantizers(dialect=dialect, weight_bits=8))
            calibrate(made, [pixels(64, seed=1)])
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / MODEL
                form = to_export_form(made.eval(), dialect, float_type)
                write_graph(form, SHAPE, file, opset=20, batch=None, dialect=dialect, float_type=float_type)
                for runner, run in runs(file, dialect).items():
                    found = compare(made, run, pixels(256, seed=2), CLASSIFICATION)
                    difference = found["mean_difference"] / found["spread"]
                    rows.append({"network": name, "dialect": dialect, "run_by": runner, "difference": difference, "agreement": found["agreement"]})
                    print(f"{name:20} {dialect} {runner:24} difference {difference:.2%}, top-1 agrees {found['agreement']:.1%}", flush=True)
            network = settled(build_network(ModelConfig(name=name), SHAPE, CLASSES))
        RESULTS.write_text(json.dumps({**host_facts(), "rows": rows}, indent=1) + "\n")


def settled(network: nn.Module) -> nn.Module:
    """Return a network whose BatchNorms have seen images."""
    network.train()
    with torch.no_grad():
        for seed in range(10, 30):
            network(pixels(32, seed=seed))
    return network.eval()


def pixels(count: int, *, seed: int) -> torch.Tensor:
    """Return smooth random images (count, 3, 64, 64) float32."""
    coarse = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, size=SHAPE[1:], mode="bilinear")


def runs(file: Path, dialect: Dialect) -> dict[str, Run]:
    """Return what runs a file: the engines of the CPU runtimes, or ONNX Runtime on the file itself."""
    if dialect == "trt":
        return {"onnxruntime on the file": open_graph(file)}
    found: dict[str, Run] = {}
    for runtime, profile in PROFILES.items():
        target, backend = load_profile(profile).target, backend_of(load_profile(profile).target)
        engine = file.with_name(backend.engine_file)
        backend.build(file, engine, target, SHAPE)
        found[f"{runtime} engine"] = backend.open_engine(engine, target)
    return found


if __name__ == "__main__":
    main()
