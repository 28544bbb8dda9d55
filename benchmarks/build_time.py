"""What an engine of TensorRT for RTX costs to build, by compute capability and precision, with no GPU in the machine.

python benchmarks/build_time.py      # results/build_time.json; about two minutes; needs the extra `rtx`
"""

import json
import tempfile
import time
from pathlib import Path

from bonsai.profiles.loader import load_profile
from bonsai.profiles.schema import Precision
from bonsai.stages.backends.runtimes import graph_form
from bonsai.stages.backends.tensorrt_engine import RTX_CAPABILITIES, TURING, rtx
from bonsai.stages.graph.names import MODEL
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.pruning.groups import WidthPlan
from bonsai.stages.steps.export_untrained import export_untrained
from bonsai.stages.store.manifest import host_facts
from bonsai.stages.store.store import Store

RESULTS = Path(__file__).parent / "results" / "build_time.json"
NETWORKS = {
    "resnet20, 32 pixels": (ModelConfig(name="resnet20", options={"width": 16}), (1, 32, 32), 10),
    "resnet18, 224 pixels": (ModelConfig(name="resnet18"), (3, 224, 224), 1000),
    "mobilenet_v2, 224 pixels": (ModelConfig(name="mobilenet_v2"), (3, 224, 224), 1000),
}
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
ROUNDS = 3


def main() -> None:
    """Build everything in turns and write the results."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        for name, (model, image_shape, num_classes) in NETWORKS.items():
            shape = {"model": model, "image_shape": image_shape, "num_classes": num_classes, "plan": WidthPlan(), "opset": 20, "dense": None}
            target = load_profile("rtx-4090").target
            graphs = {p: store.run(export_untrained, **shape, **graph_form(target.at(p))._asdict()) for p in PRECISIONS}
            cases = [(sm, p) for sm in RTX_CAPABILITIES for p in PRECISIONS if (sm, p) != (TURING, "fp32")]
            seconds: dict[tuple[str, Precision], list[float]] = {case: [] for case in cases}
            sizes: dict[tuple[str, Precision], int] = {}
            engine = Path(folder) / rtx.engine_file
            for _ in range(ROUNDS):
                for sm, precision in cases:
                    device = target.device.model_copy(update={"sm": sm})
                    started = time.perf_counter()
                    rtx.build(graphs[precision].folder / MODEL, engine, target.at(precision).model_copy(update={"device": device}), image_shape)
                    seconds[sm, precision].append(time.perf_counter() - started)
                    sizes[sm, precision] = engine.stat().st_size
            for (sm, precision), taken in seconds.items():
                rows.append({"network": name, "sm": sm, "precision": precision, "seconds": sorted(taken), "megabytes": sizes[sm, precision] / 1e6})
                print(f"{name:26} sm {sm:4} {precision} {min(taken):.2f}-{max(taken):.2f} s, {sizes[sm, precision] / 1e6:.2f} MB", flush=True)
            RESULTS.write_text(json.dumps({**host_facts(), "batch": target.batch, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
