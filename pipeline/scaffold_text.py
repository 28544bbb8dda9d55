"""The files that `bonsai init` writes, as text: every key with a line that says what it does."""

from collections.abc import Sequence
from typing import NamedTuple


class Choices(NamedTuple):
    """What is filled in.

    Attributes:
        root: Folder of the images, from the recipe's folder.
        found: Images and parts, in a few words.
        steps: Optimizer steps per epoch.
        prune: Lines of the section `prune`.
        notes: Comment lines at the end.
    """

    name: str
    device_file: str
    model: str
    root: str
    size: int
    channels: int
    validation: float
    test: float
    found: str
    batch_size: int
    steps: int
    epochs: int
    lr: float
    warmup_epochs: float
    checks_per_epoch: int
    qat_epochs: int
    prune: Sequence[str]
    notes: Sequence[str]


def recipe_text(choices: Choices) -> str:
    """Return the recipe file."""
    c = choices
    where = "folder of the images: one sub-folder per class, or train/, val/ and test/ with these"
    lines = [
        f"# A recipe: what is compressed and how. `bonsai run {c.name}.yaml` runs it, with --dry-run it only checks it. Paths start from this file's folder.",
        f"name: {c.name}                  # packages are called by it",
        f"description: {c.model} on {c.found}",
        f"profile: {c.device_file}        # the target; or --profile NAME|FILE, see `bonsai list profiles`",
        "model:",
        f"  name: {c.model!r}    # module:function, in a file of this folder, the working directory or an installed package; see `bonsai list models`",
        "  options: {}                   # further keyword arguments of that function, beside in_channels and num_classes",
        "  seed: 0                       # of the initial weights",
        "data:",
        "  name: image_folder",
        "  options:",
        f"    root: {c.root!r}    # {where}",
        f"    size: {c.size}                    # images become squares of so many pixels; larger is slower, and often more accurate",
        f"    channels: {c.channels}                 # 3 colour, 1 grey",
        f"  validation: {c.validation:<18g}# share of the images that decides between epochs",
        f"  test: {c.test:<24g}# share that only the finished engine sees; folders train/, val/ and test/ come before these two",
        "  seed: 0                       # of the split",
        "training:                       # one learning-rate cycle: dense network, pruning, recovery",
        f"  epochs: {c.epochs:<22d}# of {c.steps} optimizer steps each; more is slower, and often more accurate",
        f"  batch_size: {c.batch_size}",
        f"  lr: {c.lr:<26g}# highest learning rate, of SGD with Nesterov's momentum; lower it where training diverges",
        f"  warmup_epochs: {c.warmup_epochs:<15g}# in which the learning rate rises to it",
        "  weight_decay: 5e-4",
        "  augment: {rotate: 10, shift: 0.06, zoom: 0.1}   # at most so many degrees, shares of the side, change of scale; nothing is mirrored",
        f"  checks_per_epoch: {c.checks_per_epoch:<12d}# how often EPI asks whether the structure is stable, so that pruning can begin",
        "  threads: 2                    # CPU threads; the result depends on their number",
        "  device: cpu                   # or cuda",
        "prune:",
        *(f"  {line}" for line in c.prune),
        "quantize:",
        "  qat: when_needed              # fine-tune with quantisers only where calibration costs more than max_drop; always, never",
        "  max_drop: 0.01                # of validation top-1",
        f"  epochs: {c.qat_epochs:<22d}# of that fine-tuning",
        f"  lr: {c.lr / 10:<26g}# its highest learning rate",
        *(f"# {note}".rstrip() for note in c.notes),
    ]
    return "\n".join(lines) + "\n"


def prune_lines(window: int) -> list[str]:
    """Return the section `prune` that `init` chooses.

    Args:
        window: Of EPI: checks that are compared, and that it must not fall in.
    """
    return [
        f"epi: {{window: {window}, monotone: {window}, latest: 0.5}}   # checks that must agree; at half of the cycle pruning begins anyway",
        "criterion: magnitude_l2       # which channels matter: `criterion` in docs/pruning.md",
        "floor: 0.1                    # least share of every layer's channels that stays",
    ]


def device_text(name: str, extends: str, *, budget: float | None, parent: str, drop: float, why: str) -> str:
    """Return the target's file.

    Args:
        name: Of the profile.
        extends: Name or path of the parent.
        budget: Fraction of the dense network's latency; None leaves the parent's.
        parent: The parent's budget, in words.
        drop: Largest accuracy drop.
        why: Comment lines on it.
    """
    own = "budget: {latency: %g}         # p50 of the engine over that of the dense FP32 engine, at most; or {latency_ms: 2.5}" % (budget or 0)
    lines = [
        f"# The target: where the engine runs, and what it must achieve there. All that is not said here is as in {extends}.",
        f"extends: {extends}",
        f"name: {name}",
        own if budget is not None else f"# budget: {{latency_ms: 2.5}}    # the parent's is {parent}",
        "gates:",
        *(f"  # {line}" for line in why.split("\n")),
        f"  max_accuracy_drop: {drop:g}",
        "  # max_size_mb: 1.0            # of the engine file",
    ]
    return "\n".join(lines) + "\n"


MODEL = '''"""A small residual network to start from. Replace it with yours: `build` is called with the images' channels and the number of classes."""

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        if stride != 1 or inputs != outputs:
            self.skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        else:
            self.skip = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(out)) + self.skip(x))


class Net(nn.Module):
    def __init__(self, in_channels: int, num_classes: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(in_channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.blocks = nn.Sequential(Block(width, width, 1), Block(width, 2 * width, 2), Block(2 * width, 4 * width, 2))
        self.head = nn.Linear(4 * width, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def build(in_channels: int, num_classes: int, width: int = 32) -> nn.Module:
    return Net(in_channels, num_classes, width)
'''
