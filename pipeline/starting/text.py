"""The files that `bonsai init` writes, as text: every key with a line that says what it does."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from bonsai.pipeline.starting.samples import Table
from bonsai.profiles.budget import Budget
from bonsai.stages.data.config import DataConfig
from bonsai.stages.tasks.registry import DEFAULT

COLUMN = 34
"""Column where comments begin."""
_REFERENCES = {
    "given": "accuracy is compared with the network as its weights give it, which is not trained any further",
    "trained": "the weights are for other classes: the network is fine-tuned to the end, unpruned, to compare with it",
}


class Choices(NamedTuple):
    """What is filled in.

    Attributes:
        file: Name of the recipe's file.
        metric: Label of the metric.
        task: Name of the task.
        data: Lines of the section `data`.
        found: Images and classes, in a few words.
        steps: Optimizer steps per epoch.
        prune: Lines of the section `prune`.
        ends: Names of the first and the last layer.
        balanced: Whether the classes have about the same number of targets.
        weights: Trained weights that the recipe starts with; None for none.
        reference: What `training.reference` says.
        notes: Comment lines at the end.
    """

    file: str
    name: str
    metric: str
    device_file: str
    model: str
    task: str
    data: Sequence[str]
    found: str
    batch_size: int
    steps: int
    epochs: int
    lr: float
    warmup_epochs: float
    qat_epochs: int
    qat_lr: float
    prune: Sequence[str]
    ends: tuple[str, str]
    balanced: bool
    weights: str | None
    reference: Literal["trained", "given"]
    notes: Sequence[str]


def recipe_text(choices: Choices) -> str:
    """Return the recipe file."""
    c = choices
    lines = [
        f"# A recipe: what is compressed, and how. `bonsai run {c.file}` runs it, --dry-run only checks it. Paths start from this file's folder.",
        _row(f"name: {c.name}", "also the first half of the package's name"),
        f"description: {c.model} on {c.found}",
        _row(f"profile: {c.device_file}", "the target; or `--profile NAME|FILE`, see `bonsai list profiles`"),
        *([] if c.task == DEFAULT else [_row(f"task: {c.task}", "a class for each pixel")]),
        "model:",
        _row(f"  name: {c.model!r}", "module:function, in a file of this folder, the working directory or an installed package"),
        _row("  options: {}", "further keyword arguments of that function, besides in_channels and num_classes"),
        *(
            [_row(f"  weights: {c.weights!r}", "trained weights: .safetensors, .pth or .pt; what they reach is printed before any training")]
            if c.weights
            else []
        ),
        _row("  seed: 0", "seed of the initial weights" if not c.weights else "seed of the weights that are not given"),
        "data:",
        *c.data,
        _row("training:", "one learning-rate cycle: " + ("fine-tuning, with pruning on the way" if c.weights else "dense network, pruning, recovery")),
        _row(f"  epochs: {c.epochs}", f"of {c.steps} optimizer steps each; more is slower, and often more accurate"),
        f"  batch_size: {c.batch_size}",
        _row(f"  lr: {c.lr:g}", "highest learning rate, of SGD with Nesterov's momentum; lower it if training diverges"),
        _row(f"  warmup_epochs: {c.warmup_epochs:g}", "the learning rate rises to lr during these epochs"),
        "  weight_decay: 5e-4",
        _row("  augment: {rotate: 10, shift: 0.06, zoom: 0.1}", "largest rotation in degrees, shift in fractions of the side, change of scale; no mirroring"),
        *([] if c.balanced else [_row("  balance: weights", "rare classes count more in the loss; `none`: all pixels count alike")]),
        _row("  threads: 2", "CPU threads; the result depends on their number"),
        _row("  device: cpu", "or cuda"),
        *([_row(f"  reference: {c.reference}", _REFERENCES[c.reference])] if c.weights else []),
        "prune:",
        *(f"  {line}" for line in c.prune),
        "quantize:",
        _row("  qat: when_needed", "fine-tune with simulated INT8 only if calibration costs more than max_drop; or always, never"),
        _row("  max_drop: 0.01", f"of validation {c.metric}"),
        _row("  keep_float: []", f"layers that stay float, such as the first and the last: {list(c.ends)}"),
        _row(f"  epochs: {c.qat_epochs}", "length of that fine-tuning"),
        _row(f"  lr: {c.qat_lr:g}", "its highest learning rate"),
        *(f"# {note}".rstrip() for note in c.notes),
    ]
    return "\n".join(lines) + "\n"


def _row(text: str, comment: str) -> str:
    return f"{text:{COLUMN}}  # {comment}"


def folder_lines(root: str, pixels: Sequence[str], data: DataConfig) -> list[str]:
    """Return the section `data` of a folder of images by class; `pixels` are lines of `pixel_lines`."""
    return [
        "  name: image_folder",
        "  options:",
        _row(f"    root: {root!r}", "one sub-folder per class, or train/, val/ and test/ with these"),
        *pixels,
        *_split_lines(data, "val/ exists", "test/ exists"),
    ]


def table_lines(table: Table, root: str, classes: Sequence[str], pixels: Sequence[str], data: DataConfig) -> list[str]:
    """Return the section `data` of images and masks that a table lists; `pixels` are lines of `pixel_lines`."""
    return [
        "  name: csv",
        "  options:",
        _row(f"    root: {root!r}", "holds the table, the images and the masks"),
        _row(f"    file: {table.file.name}", "lists each image with its mask; add rows for new ones"),
        _row("    mask: mask", "its column of masks: images with the number of a class in each pixel; 255 does not count"),
        *([_row("    split: split", "its column of parts: train, val or test")] if table.split else []),
        _row(f"    classes: [{', '.join(classes)}]", "names of the numbers 0, 1, ... in the masks: give them yours"),
        *pixels,
        *_split_lines(data, "the table has val", "it has test"),
    ]


def pixel_lines(size: tuple[int, int], channels: int, *, normalised: bool) -> list[str]:
    """Return how images become inputs.

    Args:
        size: Height and width in pixels.
        channels: 1 or 3.
        normalised: Whether weights may have been trained with a normalisation that only the user knows.
    """
    height, width = size
    if height == width:
        row = _row(f"    size: {height}", "images are resized to squares of this side, in pixels; larger is slower, and often more accurate")
    else:
        row = _row(f"    size: [{height}, {width}]", "images are resized to this height and width, in pixels; larger is slower, and often more accurate")
    return [row, _row(f"    channels: {channels}", "3 colour, 1 grey"), *(_normalisation_lines(channels) if normalised else [])]


def _split_lines(data: DataConfig, validation: str, test: str) -> list[str]:
    return [
        _row(f"  validation: {data.validation:g}", f"fraction of the images for all choices during the run; ignored if {validation}"),
        _row(f"  test: {data.test:g}", f"fraction of the images for the final test; ignored if {test}"),
        _row("  seed: 0", "seed of the split"),
    ]


def _normalisation_lines(channels: int) -> list[str]:
    """Return the place for the normalisation of trained weights: the usual one, not in force."""
    mean, std = ("[0.485, 0.456, 0.406]", "[0.229, 0.224, 0.225]") if channels == 3 else ("[0.5]", "[0.5]")
    return [
        _row(f"    # mean: {mean}", "normalisation that the weights were trained with, of pixels from 0 to 1;"),
        _row(f"    # std: {std}", "without these two lines pixels become -1 to 1"),
    ]


def prune_lines(first: str) -> list[str]:
    """Return the section `prune` that `init` chooses, given the name of the first layer."""
    return [
        _row("epi: {every: 0.01, latest: 0.25}", "EPI checks after every 1 % of the cycle whether the widths are stable; at 25 % pruning begins anyway"),
        _row("criterion: bn_gradient", "which channels matter: `criterion` in docs/pruning.md"),
        _row("recover: {epochs: auto}", "training after the cut: as much as pruning a trained network takes; more while it misses max_drop and gains"),
        *_limit_lines(first),
    ]


def fine_tuning_lines(first: str) -> list[str]:
    """Return the section `prune` that `init` chooses for weights that are compared with themselves, given the name of the first layer."""
    return [
        _row("epi: {every: 0.01, latest: 0.25}", "EPI checks after every 1 % of the fine-tuning whether the widths are stable; at 25 % pruning begins anyway"),
        _row("criterion: bn_gradient", "which channels matter: `criterion` in docs/pruning.md"),
        _row("distill: {teacher: trained}", "the pruned network imitates the given one, besides the labels"),
        *_limit_lines(first),
    ]


def _limit_lines(first: str) -> list[str]:
    return [
        _row("floor: 0.1", "smallest fraction of the channels that is kept in every layer"),
        _row("keep: []", f"layers that keep all their channels, such as the first: {[first]}; the last is never pruned"),
    ]


def device_text(name: str, extends: str, *, budget: float | None, parent: Budget, drop: float, why: str, metric: str) -> str:
    """Return the target's file.

    Args:
        name: Name of the profile.
        extends: Name or path of the parent.
        budget: Fraction of the dense network's latency; None leaves the parent's.
        parent: The parent's.
        drop: Largest accuracy drop.
        why: Comment lines on it.
        metric: Label of the metric.
    """
    if budget:
        own = _row(f"budget: {{latency: {budget:g}}}", "largest latency (p50), as a fraction of the dense FP32 engine's; or {latency_ms: 2.5, size_mb: 1}")
    else:
        own = _row("# budget: {latency_ms: 2.5, size_mb: 1}", f"the parent's is {parent}")
    lines = [
        f"# The target: where the engine runs, and what it must achieve there. All other keys are as in {extends}.",
        f"extends: {extends}",
        f"name: {name}",
        own,
        "gates:",
        *(f"  # {line}" for line in why.split("\n")),
        f"  max_drop: {drop:g}",
        _row("  # min_metric: 0.9", f"smallest allowed {metric} of the engine itself: the lower end of its 95 % interval must not be below"),
    ]
    return "\n".join(lines) + "\n"
