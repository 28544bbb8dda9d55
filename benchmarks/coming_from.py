"""What other tools' own snippets and Bonsai's do to one trained network: parameters, work, zeros, latency of the ONNX engine, accuracy.

    python benchmarks/coming_from.py [TOOL ...]      # results/coming_from.json; goes on where it was stopped; the rows of docs/coming-from.md

ResNet-8 of width 32 is trained once on 3,200 images of Fashion-MNIST (`fashion.py`). Every tool of `other_tools.py` then gets a copy of it in a process of
its own, and the same two epochs more. The engine is the ONNX file as ONNX Runtime optimises it for this machine, one thread, timed in turns with
the dense network's. One seed: the accuracies say whether a network still works, not which tool is better.

A tool that is not installed is left out, and the command says what to install. Tools that need different versions of one package go into folders of their
own: `pip install --no-deps --target FOLDER/PACKAGE PACKAGE`, and `--packages FOLDER`. A tool that fails has a row with the reason.
"""

import argparse
import copy
import functools
import importlib.metadata
import inspect
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fashion import DEBIAN, load
from other_tools import TOOLS, Tool
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from bonsai.profiles.loader import load_profile
from bonsai.profiles.located_yaml import Record
from bonsai.stages.backends.onnxruntime_engine import backend
from bonsai.stages.backends.running import Run
from bonsai.stages.backends.timing import time_interleaved
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.data.registry import TRAIN
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.counting import count_macs, count_parameters
from bonsai.stages.networks.registry import build_network
from bonsai.stages.store.manifest import host_facts

FILE = Path(__file__).parent / "results" / "coming_from.json"
SHAPE, WIDTH, BATCH, EPOCHS, IMAGES, TESTED = (1, 28, 28), 32, 64, 5, 3200, 2000
ROUNDS = 5
TIMING = TimingConfig(runs=300, seconds=3, block=20, warmup_runs=50, warmup_seconds=0.2)


class Row(Record):
    """What became of the network.

    Attributes:
        failed: The error that ended it; all that follows is then None.
        zeros: Fraction of the weights that are 0 and still there.
        macs: Multiply-accumulates of one image.
        latency: Median of the rounds: time of the engine over that of the dense network's, of the processor alone.
        spread: Least and largest of the rounds.
        int8: Fraction of the engine's convolutions that run as INT8 kernels.
        seconds: Of the snippet with its fine-tuning.
    """

    tool: str
    version: str
    source: str
    failed: str | None = None
    parameters: int | None = None
    zeros: float | None = None
    macs: int | None = None
    latency: float | None = None
    spread: tuple[float, float] | None = None
    top1: float | None = None
    int8: float | None = None
    seconds: float | None = None


class Data:
    """Images in memory, and the training that all networks have in common."""

    def __init__(self, root: Path) -> None:
        found = load(str(root), IMAGES, TESTED)
        assert found.parts is not None
        images, first = found.images.float() / 255, found.parts == TRAIN
        self.loader: DataLoader[Any] = DataLoader(TensorDataset(images[first], found.labels[first]), BATCH, shuffle=True)
        self.example = images[first][:2]
        self.test, self.labels = images[~first].numpy(), found.labels[~first].numpy()

    def finetune(self, model: nn.Module, optimizer: torch.optim.Optimizer, epochs: int = 2, after_backward: Callable[[], object] = lambda: None) -> None:
        """Train some epochs; the optimizer's learning rate falls to 0 along a line."""
        model.train()
        rates, steps = [group["lr"] for group in optimizer.param_groups], epochs * len(self.loader)
        for step, (images, labels) in enumerate(itertools.chain.from_iterable(itertools.repeat(self.loader, epochs))):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * (1 - step / steps)
            optimizer.zero_grad()
            cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            after_backward()
            optimizer.step()

    def evaluate(self, run: Run) -> np.ndarray:
        """Return for every test image whether a network is right."""
        hits: np.ndarray = run(self.test).argmax(1) == self.labels
        return hits

    def trained(self, file: Path) -> nn.Module:
        """Return the trained network; it is trained where the file is not there."""
        network = build_network(ModelConfig(name="resnet8", options={"width": WIDTH}, seed=0), SHAPE, 10)
        if not file.exists():
            torch.manual_seed(0)
            self.finetune(network, torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4), EPOCHS)
            torch.save(network.state_dict(), file)
        network.load_state_dict(torch.load(file))
        return network


def measure(name: str, tool: Tool, data: Data, folder: Path) -> Row:
    """Run a snippet in a folder of its own, and measure what it made."""
    dense = data.trained(folder / "dense.pt")
    place = folder / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    os.chdir(place)
    row = Row(tool=name, version=tool.version or importlib.metadata.version(tool.package), source=tool.source)
    torch.manual_seed(0)
    started = time.perf_counter()
    try:
        model, file = tool.snippet(copy.deepcopy(dense), data)
        seconds = time.perf_counter() - started
        made, kernels = engine_of(file or exported(model, place / "made.onnx"))
    except ModuleNotFoundError:
        raise
    except Exception as error:  # a row says how it failed
        return row.model_copy(update={"failed": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:300]})
    target = load_profile("local-cpu").target
    reference, _ = engine_of(exported(dense, folder / "dense.onnx"))
    runs = {"dense": backend.open_engine(reference, target), "made": backend.open_engine(made, target)}
    ratios = []
    for _ in range(ROUNDS):
        medians = {key: float(np.median(values[0])) for key, values in time_interleaved(runs, dict.fromkeys(runs, data.test[:1]), TIMING).items()}
        ratios.append(medians["made"] / medians["dense"])
    weights = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    facts = {
        "parameters": count_parameters(model),
        "zeros": sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights),
        "macs": count_macs(model, SHAPE),
        "latency": statistics.median(ratios),
        "spread": (min(ratios), max(ratios)),
        "top1": float(data.evaluate(runs["made"]).mean()),
        "int8": kernels["int8_convolutions"] / (kernels["int8_convolutions"] + kernels["float_convolutions"]),
        "seconds": seconds,
    }
    return row.model_copy(update=facts)


def exported(model: nn.Module, file: Path) -> Path:
    """Write a float network as ONNX, by torch's exporter, unless it is there."""
    if not file.exists():
        torch.onnx.export(model.eval(), (torch.zeros(1, *SHAPE),), file, input_names=["input"], dynamo=True, verbose=False)
    return file


def engine_of(file: Path) -> tuple[Path, dict[str, int]]:
    """Return the graph as ONNX Runtime optimises it for this machine, and its kernels by kind."""
    engine = file.resolve().with_suffix(".engine.onnx")
    return engine, backend.build(file, engine, load_profile("local-cpu").target, SHAPE)


def shown_lines(tool: Tool) -> list[str]:
    """Return the lines of a snippet as the page shows them: without indentation, what the benchmark returns, and the record that holds what is the user's."""
    body = inspect.getsource(_function(tool)).split('"""')[2].replace("work.", "").splitlines()
    return [line.partition("  # type:")[0].strip() for line in body if line.strip() and not line.strip().startswith(("return model,", "return pruned,"))]


def _function(tool: Tool) -> Callable[..., Any]:
    return tool.snippet.func if isinstance(tool.snippet, functools.partial) else tool.snippet


def lines_of(tool: Tool) -> int:
    """Return how many lines a snippet has without its imports."""
    return sum(not line.startswith(("import ", "from ")) for line in shown_lines(tool))


def table(rows: list[Row]) -> list[str]:
    """Return the lines of the table in `docs/coming-from.md`."""
    lines = ["| tool | what its snippet does | lines | weights | zeros | MACs | INT8 convolutions | latency | top-1 |", "|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        tool = TOOLS[row.tool]
        head = f"| {tool.title.format(version=row.version)} | {(_function(tool).__doc__ or '').rstrip('.')} | {lines_of(tool)} |"
        if row.failed is not None:
            lines.append(f"{head} failed: {row.failed} | | | | | |")
            continue
        assert row.parameters and row.macs and row.zeros is not None and row.int8 is not None and row.latency and row.top1  # a row is whole or failed
        sizes = f"{row.parameters / 1000:.0f}k | {row.zeros:.0%} | {row.macs / 1e6:.1f} M | {row.int8:.0%}"
        lines.append(f"{head} {sizes} | {row.latency:.2f} | {100 * row.top1:.1f} |")
    return lines


def read() -> list[Row]:
    """Return the rows that are there."""
    return [Row.model_validate(row) for row in json.loads(FILE.read_text())["rows"]] if FILE.exists() else []


def main() -> None:
    """Measure what is missing, each tool in a process of its own."""
    parser = argparse.ArgumentParser(description="other tools' snippets and Bonsai's on one network")
    parser.add_argument("tools", nargs="*", metavar="TOOL", help=f"of {', '.join(TOOLS)}; all by default")
    parser.add_argument("--data", type=Path, default=DEBIAN, help="folder of the four files of Fashion-MNIST")
    parser.add_argument("--packages", type=Path, default=None, help="folder that has a folder of packages for each tool")
    parser.add_argument("--folder", type=Path, default=None, help="of the trained network and what is made of it; a temporary one by default")
    parser.add_argument("--here", action="store_true", help="measure one tool in this process, also where there is a row")
    options = parser.parse_args()
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="coming-from-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if options.here:
        (name,) = options.tools
        torch.set_num_threads(1)
        try:
            save(measure(name, TOOLS[name], Data(options.data), folder))
        except ModuleNotFoundError as error:
            raise SystemExit(f"{name} was not measured: {error}; install {TOOLS[name].package}") from error
        return
    known = {row.tool for row in read()}
    for name in options.tools or TOOLS:
        if name in known:
            continue
        places = [str(options.packages.resolve() / TOOLS[name].package.rpartition("/")[2])] if options.packages else []
        paths = os.pathsep.join([*places, *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [sys.executable, str(Path(__file__).resolve()), name, "--here", "--data", str(options.data), "--folder", str(folder)]
        print(f"-- {name}", flush=True)
        subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, check=False)  # it says itself why it has no row
    print("\n".join(table(read())))


def save(row: Row) -> None:
    """Add a row to those that are there, in the order of the tools."""
    rows = sorted([*(other for other in read() if other.tool != row.tool), row], key=lambda each: list(TOOLS).index(each.tool))
    facts: dict[str, Any] = {**host_facts(), "images": IMAGES, "tested": TESTED, "rows": [each.model_dump(mode="json") for each in rows]}
    FILE.write_text(json.dumps(facts, indent=1) + "\n")
    print(row, flush=True)


if __name__ == "__main__":
    main()
