"""One network of the zoo, taken the whole way in a process of its own: dry run, cut, a training step, INT8, export, engine.

python benchmarks/zoo_steps.py MODULE/MODEL ROW.json      # `zoo.py` does it for all

What Bonsai is asked for stands in the functions at the end, one per step, and nowhere else.
"""

import argparse
import copy
import json
import logging
import resource
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode
from zoo_models import Entry, entries, options_at, smallest_size

from bonsai.pipeline.run.inspecting import inspect_network
from bonsai.pipeline.run.loading import load
from bonsai.profiles.errors import BonsaiError, ConfigError
from bonsai.stages.backends.reference import open_graph
from bonsai.stages.backends.registry import backend_of, check_target
from bonsai.stages.backends.running import Run
from bonsai.stages.graph.exporting import write_graph
from bonsai.stages.graph.names import MODEL
from bonsai.stages.graph.onnx_graph import Dialect
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.edits.fusing import fuse, fusion_of, require_same_fused
from bonsai.stages.networks.edits.records import Quantizers
from bonsai.stages.networks.registry import build_network
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.groups import Group, Kept
from bonsai.stages.pruning.limits import width_step
from bonsai.stages.pruning.surgery import check_cut, cut
from bonsai.stages.quantization.calibrate import calibrate
from bonsai.stages.quantization.export_form import count_quantised, to_export_form
from bonsai.stages.quantization.insert import insert_quantizers

PROFILE = "local-cpu"
CLASSES = 10
STEPS = ("dry run", "cut", "training step", "INT8", "export", "engine")
ALIGNED = 8
FLOAT_LIMIT, INT8_LIMIT, NOISE_LIMIT = 0.01, 0.10, 1.0
"""Largest mean difference of logits, relative to how much they vary between images: of what runs a float file, of what runs a Q/DQ file, and of
the simulated INT8 network from the float one."""
NOISE_SHARE = 1.2
"""Two computations of one INT8 network may differ by this share of what quantisation itself costs: a single rounding that falls to the other side moves
all that follow it in a deep network that is untrained."""
PROJECT = Path(__file__).resolve().parents[1]


class Differs(Exception):
    """Two forms of a network that should compute the same do not."""


class Walk:
    """A network on its way, and the row that is written after every step.

    Args:
        entry: Which network.
        file: Receives the row as JSON.
    """

    def __init__(self, entry: Entry, file: Path) -> None:
        self.entry, self.file = entry, file
        self.row: dict[str, Any] = {"module": entry.module, "model": entry.model, "steps": {}, "differences": {}}
        self.shape = (3, 0, 0)
        self.config = ModelConfig(name=entry.factory)
        self.groups: tuple[Group, ...] = ()
        self.dense, self.network, self.quantised = nn.Module(), nn.Module(), fx.GraphModule(nn.Module(), fx.Graph())

    def go(self, folder: Path) -> None:
        """Take the steps in order, up to the first that fails.

        Args:
            folder: For the files of export and engine.
        """
        actions: dict[str, Callable[[], None]] = {
            "dry run": lambda: dry_run(self),
            "cut": lambda: cut_in_half(self),
            "training step": lambda: train_once(self),
            "INT8": lambda: quantise(self),
            "export": lambda: export(self, folder),
            "engine": lambda: run_engines(self, folder),
        }
        for step in STEPS:
            started = time.process_time()
            self.note(step, "running", "", 0)
            outcome, reason = attempt(actions[step], refusable=step == "dry run")
            self.note(step, outcome, reason, time.process_time() - started)
            if outcome != "ok":
                break

    def note(self, step: str, outcome: str, reason: str, seconds: float) -> None:
        """Write down how a step went; seconds are those of the CPU, so that other work on the machine does not count."""
        self.row["steps"][step] = {"outcome": outcome, "reason": reason, "seconds": round(seconds, 1)}
        self.row["seconds"] = round(time.process_time(), 1)
        self.row["memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        self.file.write_text(json.dumps(self.row))

    def pixels(self, count: int, seed: int) -> torch.Tensor:
        """Return smooth random images (count, 3, size, size) float32, each of a contrast and a colour of its own, so that logits vary between them."""
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.randn(count, 3, 8, 8, generator=generator) * torch.rand(count, 1, 1, 1, generator=generator).mul(2.5).add(0.2)
        return nn.functional.interpolate(coarse + torch.randn(count, 3, 1, 1, generator=generator), size=self.shape[1:], mode="bilinear")

    def compare(self, what: str, expected: torch.Tensor, found: torch.Tensor, limit: float) -> None:
        """Note a difference of logits (n, classes), relative to how much the expected ones vary between images.

        Raises:
            Differs: It is above the limit.
        """
        difference = float((found - expected).abs().mean() / expected.std(0).mean().clamp_min(1e-12))
        self.row["differences"][what] = round(difference, 6)
        if not difference <= limit:  # NaN is refused too
            raise Differs(f"{what}: logits differ by {difference:.2%} of how much they vary between images, allowed {limit:.0%}")


def attempt(action: Callable[[], None], *, refusable: bool) -> tuple[str, str]:
    """Take a step and return how it went, and why: ``ok``, ``refused`` (named, before any training), ``differs`` or ``failed``."""
    try:
        action()
    except Differs as error:
        return "differs", str(error)
    except BonsaiError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        reason = "; ".join(line for line in lines if not line.startswith(("allowed:", "do:")))
        return ("refused" if refusable and isinstance(error, ConfigError) else "failed"), reason[:600]
    except Exception as error:  # a traceback for the user: the very thing that is looked for
        first = next(iter(str(error).strip().splitlines()), "")
        return "failed", f"{type(error).__name__}: {first[:300]} ({_place(error)})"
    return "ok", ""


def _place(error: Exception) -> str:
    """Return the last line of ours that an error went through, and the last line of all."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(PROJECT / "stages")]
    return ", ".join(dict.fromkeys(f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno}" for frame in (*ours[-1:], frames[-1])))


def awaken(network: nn.Module) -> None:
    """Give random values to every parameter that hides what lies before it: zero gammas and biases, layer scales of 1e-6."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.numel() and float(parameter.abs().max()) < 1e-3:
                parameter.normal_(mean=0.3, std=0.1, generator=generator)


@torch.no_grad()
def settle(network: nn.Module, walk: Walk) -> None:
    """Let BatchNorms take the statistics of images, all of them at once, so that logits vary between images."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for a cumulative average
    network.train()
    for seed in range(10, 14):
        network(walk.pixels(8, seed))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


def macs_by_module(network: nn.Module, shape: tuple[int, int, int]) -> dict[str, int]:
    """Return the multiply-accumulates of one image by the name of the module; those of all stand under an empty name."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, *shape))
    root = type(network).__name__
    counts = {name: sum(by_operator.values()) // 2 for name, by_operator in counter.get_flop_counts().items()}
    return {"": counts.get("Global", 0), **{name.removeprefix(f"{root}."): count for name, count in counts.items() if name.startswith(f"{root}.")}}


def half(groups: tuple[Group, ...]) -> Kept:
    """Keep about half of every group's channels, drawn at random: so many that their positions are a multiple of eight. A group with fewer stays whole."""
    generator = torch.Generator().manual_seed(0)
    steps = {group.name: width_step(group, ALIGNED) for group in groups}
    widths = {group.name: (group.width, group.width // 2 // steps[group.name] * steps[group.name]) for group in groups}
    return {name: tuple(sorted(torch.randperm(dense, generator=generator)[:kept].tolist())) for name, (dense, kept) in widths.items() if kept}


class Refusals(logging.Handler):
    """Collects what the dry run says of groups that are left whole."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line that names a group."""
        message = record.getMessage()
        if "left whole" in message:
            self.lines.append(message)


def dry_run(walk: Walk) -> None:
    """Build and inspect the network as `bonsai run --dry-run` does."""
    size = smallest_size(walk.entry, CLASSES)
    walk.shape, walk.row["size"] = (3, size, size), size
    walk.config = ModelConfig(name=walk.entry.factory, options=options_at(walk.entry, size))
    walk.row["parameters"] = sum(p.numel() for p in build_network(walk.config, walk.shape, CLASSES).parameters())
    recipe = load("resnet-edge", PROFILE, {})[0].model_copy(update={"model": walk.config})
    refusals, logger = Refusals(), logging.getLogger("bonsai")
    logger.addHandler(refusals)
    logger.setLevel(logging.INFO)
    try:
        walk.groups = inspect_network(recipe, walk.shape, CLASSES).groups
    finally:
        walk.row["refused_groups"], walk.row["refusals"] = len(refusals.lines), [line[:300] for line in refusals.lines[:20]]
    walk.dense = build_network(walk.config, walk.shape, CLASSES)
    awaken(walk.dense)
    settle(walk.dense, walk)
    touched = {member.module for group in walk.groups for member in group.members}
    modules, macs = dict(walk.dense.named_modules()), macs_by_module(walk.dense, walk.shape)
    prunable = sum(p.numel() for name in touched for p in modules[name].parameters(recurse=False))
    walk.row["groups"], walk.row["macs"] = len(walk.groups), macs[""]
    walk.row["prunable_parameters"] = prunable / walk.row["parameters"]
    walk.row["prunable_macs"] = sum(macs.get(name, 0) for name in touched) / max(macs[""], 1)


def cut_in_half(walk: Walk) -> None:
    """Cut every group that may be cut, and compare with the dense network whose removed channels are zero."""
    walk.network, kept = copy.deepcopy(walk.dense), half(walk.groups)
    groups = find_groups(walk.network, walk.shape)
    edit = cut(walk.network, groups, kept)
    walk.row["differences"]["cut"] = check_cut(walk.dense, walk.network, edit, walk.shape)
    walk.row["cut_parameters"] = sum(p.numel() for p in walk.network.parameters())
    walk.row["cut_macs"] = macs_by_module(walk.network, walk.shape)[""]


def train_once(walk: Walk) -> None:
    """Do one step of SGD on random images and labels."""
    network = walk.network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    loss = nn.functional.cross_entropy(network(walk.pixels(8, seed=1)), torch.arange(8) % CLASSES)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    optimizer.step()
    if not torch.isfinite(loss):
        raise Differs("the loss of the first step is not finite")
    settle(network, walk)


def quantise(walk: Walk) -> None:
    """Fuse the branches of a network that is trained in such, insert quantisers and calibrate them."""
    fusion = fusion_of(walk.network)
    if fusion is not None:
        walk.row["differences"]["fused"] = require_same_fused(walk.network, fusion, walk.pixels(8, seed=4))
        fuse(walk.network, fusion)
    twin = copy.deepcopy(walk.network)
    target = load("resnet-edge", PROFILE, {})[1][0].target
    bits = backend_of(target).weight_bits(check_target(target))
    walk.quantised = insert_quantizers(twin, walk.shape, Quantizers(dialect="ort", weight_bits=bits))
    calibrate(walk.quantised, [walk.pixels(16, seed=2)])
    walk.quantised.eval()
    with torch.no_grad():
        images = walk.pixels(16, seed=3)
        walk.compare("simulated INT8", walk.network.eval()(images), walk.quantised(images), NOISE_LIMIT)
    macs = macs_by_module(walk.quantised, walk.shape)
    quantised = [name for name, module in walk.quantised.named_modules() if hasattr(module, "weight_quantizer")]
    walk.row["int8_macs"] = sum(macs.get(name, 0) for name in quantised) / max(macs[""], 1)


def export(walk: Walk, folder: Path) -> None:
    """Write the float file and the Q/DQ file, and run both with ONNX Runtime."""
    prepared = to_export_form(walk.quantised, "ort")
    forms: dict[Dialect, tuple[nn.Module, int]] = {"float": (walk.network.eval(), 0), "ort": (prepared, count_quantised(prepared))}
    for dialect, (form, quantised) in forms.items():
        (folder / dialect).mkdir()
        file = folder / dialect / MODEL
        written = write_graph(form, walk.shape, file, opset=20, batch=None, dialect=dialect, float_type="fp32", quantised=quantised)
        if written.not_simplified:
            walk.row["not_simplified"] = written.not_simplified
        compare_run(walk, f"{dialect} file", open_graph(file), dialect)


def run_engines(walk: Walk, folder: Path) -> None:
    """Build the engines of both files and run them, on several images and on one."""
    target = load("resnet-edge", PROFILE, {})[1][0].target
    backend = backend_of(target)
    dialects: tuple[Dialect, ...] = ("float", "ort")
    for dialect in dialects:
        engine = folder / dialect / backend.engine_file
        precise = target.at("int8" if dialect == "ort" else "fp32")
        walk.row[f"{dialect}_kernels"] = backend.build(folder / dialect / MODEL, engine, precise, walk.shape)
        compare_run(walk, f"{dialect} engine", backend.open_engine(engine, precise), dialect)


@torch.no_grad()
def compare_run(walk: Walk, what: str, run: Run, dialect: Dialect) -> None:
    """Compare what runs a file with the torch network that the file was made from, on 16 images at once and on one alone."""
    images = walk.pixels(16, seed=3)
    reference = walk.quantised if dialect == "ort" else walk.network
    found = torch.from_numpy(np.array(run(images.numpy())))
    noise = walk.row["differences"]["simulated INT8"]
    walk.compare(what, reference(images), found, max(INT8_LIMIT, NOISE_SHARE * noise) if dialect == "ort" else FLOAT_LIMIT)
    alone = torch.from_numpy(np.array(run(images[:1].numpy())))
    if not torch.allclose(alone, found[:1], rtol=1e-3, atol=1e-3 * float(found.abs().max())):
        raise Differs(f"{what}: an image alone gives other logits than in a batch")


def main() -> None:
    """Take one network the whole way."""
    parser = argparse.ArgumentParser(description="One network of the zoo")
    parser.add_argument("key", help="MODULE/MODEL")
    parser.add_argument("row", type=Path, help="file of the row")
    parser.add_argument("--memory", type=float, default=12, help="GB that the process may take")
    parser.add_argument("--seconds", type=int, default=900, help="CPU time that the process may take")
    options = parser.parse_args()
    limit = int(options.memory * 1e9)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (options.seconds, options.seconds + 5))  # the kernel's SIGXCPU ends it
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    entry = next(entry for entry in entries() if entry.key == options.key)
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        Walk(entry, options.row).go(Path(folder))


if __name__ == "__main__":
    main()
