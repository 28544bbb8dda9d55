"""`bonsai init`: a recipe, a target and a network to start from, chosen to fit the user's images and checked before they are put in place."""

import os
import re
import shutil
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from bonsai.pipeline.recipes.recipe import load_recipe
from bonsai.pipeline.run.targets import inspect_network
from bonsai.pipeline.run.trunk import segment_stops
from bonsai.pipeline.starting.text import MODEL, Choices, device_text, prune_lines, recipe_text
from bonsai.profiles.errors import ConfigError, describe, visible
from bonsai.profiles.loader import load_profile
from bonsai.stages.data.config import DataConfig
from bonsai.stages.data.depth import find_depth
from bonsai.stages.data.image_folder import UNREADABLE, Folder, passed_over, read_values, require_readable, scan_folder
from bonsai.stages.data.pixels import kind_of, quietly_opened
from bonsai.stages.imports.registry import make_importable
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.counting import count_macs
from bonsai.stages.networks.registry import build_network, require_outputs
from bonsai.stages.selection.choices import width_choices
from bonsai.stages.steps.prepare import split_images
from bonsai.stages.tasks.intervals import images_to_prove, least_provable_drop
from bonsai.stages.tasks.registry import DEFAULT, learning_of, task_named
from bonsai.stages.tasks.task import DataSpec
from bonsai.stages.training.config import TrainConfig

METRIC = task_named(DEFAULT).metric
"""Folders of images by class are for classification."""
RECIPE_FILE, MODEL_FILE = "my-recipe.yaml", "my_model.py"
SIDES = (32, 48, 64)
"""Sides in pixels to choose from: a CPU trains on them in minutes; larger ones are the user's choice."""
OPENED = 5000
"""Most images that are opened, to look at their size and mode."""
BATCHES, LEAST_STEPS_PER_EPOCH = (64, 32, 16, 8), 8
STEPS = 600
"""Optimizer steps in which a small network that starts from nothing usually learns a small data set."""
EPOCHS = (6, 60)
MINUTES = 8.0
"""Epochs are chosen so that training takes at most this many minutes on two cores (estimated), but never fewer than `EPOCHS[0]`."""
MACS_PER_SECOND = 20e9
"""Speed of two server cores when training a small network. It is a constant, not measured, so that the same images always give the same recipe."""
PASS_MACS = 3
"""Cost of a forward and backward pass, divided by that of a forward pass."""
PASSES = 2.0
"""Total training in dense cycles: the trunk, and two branches of 1.5 cycles each, whose networks need a third of the work."""
RECOVERY = 1.5
"""Length of the branch after its cut, in cycles: as many training images as train-prune-finetune sees (`benchmarks/moments.py`)."""
BUDGET = 0.4
"""Fraction of the dense network's latency asked of this machine's CPU: a start that most convolutional networks reach."""
ALIKE = 0.05
"""Share of the test images on which two networks are taken to differ when the accuracy gate is chosen."""
LEAST_DROP = 0.02


class Ask(NamedTuple):
    """The arguments of `init`.

    Attributes:
        place: Folder, or the recipe file to write.
        data: Folder of images.
        model: Name or import string; None writes a network too.
        size: Side of the images in pixels; None chooses one.
        profile: Target that the new one extends.
        force: Whether an existing recipe and target are replaced.
    """

    place: Path
    data: Path
    model: str | None = None
    size: int | None = None
    profile: str = "local-cpu"
    force: bool = False


class Written(NamedTuple):
    """The files, the recipe first, and what the user should know: facts and warnings."""

    files: tuple[Path, ...]
    lines: tuple[str, ...]


class Changes(NamedTuple):
    """Settings that replace those that `init` would choose.

    Attributes:
        prune: Lines of the section `prune`.
        epochs: Length of the cycle; None keeps the length that `init` chooses.
        notes: Comment lines at the recipe's end.
    """

    prune: Sequence[str]
    epochs: int | None
    notes: Sequence[str]


Adapt = Callable[[nn.Module, int], Changes]
"""Makes changes from the dense network and the number of optimizer steps per epoch."""


def scaffold(ask: Ask, adapt: Adapt | None = None) -> Written:
    """Write a recipe, its target and, where none was given, a network, so that `bonsai run` works as written.

    Before anything is written, `init` checks the images of every class, imports the factory and calls it with `in_channels` and `num_classes`. The
    network must have the outputs that the task needs, must be traceable, and must have channels to prune.

    Raises:
        ConfigError: Something that was given cannot be used, or a file is there already.
    """
    file = ask.place if ask.place.suffix in (".yaml", ".yml") else ask.place / RECIPE_FILE
    folder, device_file = file.parent, file.with_name(f"{file.stem.removesuffix('-recipe')}-device.yaml")
    _require_free((file, device_file), force=ask.force)
    found = scan_folder(ask.data.expanduser())
    parent = load_profile(ask.profile)
    side, channels, depth = _look_at(found)
    size, new = ask.size or side, not folder.exists()
    with ExitStack() as undo:
        for missing in reversed([place for place in (folder, *folder.parents) if not place.exists()]):
            missing.mkdir()
            undo.callback(missing.rmdir)
        if new:
            undo.callback(shutil.rmtree, folder / "__pycache__", ignore_errors=True)  # of the network that is imported
        code = folder / MODEL_FILE
        fresh = ask.model is None and not code.exists()
        if fresh:
            code.write_text(MODEL, encoding="utf-8")
            undo.callback(code.unlink)
        model = ask.model or f"{code.stem}:build"
        for place in dict.fromkeys((folder.resolve(), Path.cwd())):
            make_importable(place, model)
        data = DataConfig(name="image_folder", validation=0.15, test=0.25)
        sizes = {name: len(indices) for name, indices in split_images(*_labels(found), found.classes, data).items()}
        network = build_network(ModelConfig(name=model), (channels, size, size), len(found.classes))
        require_outputs(network, DataSpec((channels, size, size), len(found.classes)), learning_of(DEFAULT, TrainConfig()))
        batch = next((b for b in BATCHES if sizes["train"] >= b * LEAST_STEPS_PER_EPOCH), BATCHES[-1])
        steps = max(sizes["train"] // batch, 1)
        seconds = PASS_MACS * batch * count_macs(network.eval(), (channels, size, size)) / MACS_PER_SECOND
        changes = adapt(network, steps) if adapt else Changes((), None, ())
        epochs = changes.epochs or _epochs(steps, seconds)
        choices = Choices(
            file=file.name,
            name=_slug(file.stem),
            metric=METRIC.label,
            device_file=device_file.name,
            model=model,
            root=str(ask.data.expanduser()) if ask.data.expanduser().is_absolute() else os.path.relpath(ask.data, folder),
            size=size,
            channels=channels,
            validation=data.validation,
            test=data.test,
            found=f"{len(found.images)} images of {len(found.classes)} classes",
            batch_size=batch,
            steps=steps,
            epochs=epochs,
            lr=round(0.05 * (batch / BATCHES[0]) ** 0.5, 3),
            warmup_epochs=max(1.0, round(epochs / 20, 1)),
            qat_epochs=max(2, epochs // 10),
            prune=changes.prune or prune_lines(ceil(RECOVERY * epochs)),
            notes=changes.notes,
        )
        drop, why = choose_drop(sizes["test"])
        own = BUDGET if parent.target.device.is_host else None
        extends = os.path.relpath(ask.profile, folder) if ask.profile.endswith((".yaml", ".yml")) else ask.profile
        texts = {
            file: recipe_text(choices),
            device_file: device_text(_slug(device_file.stem), extends, budget=own, parent=parent.budget, drop=drop, why=why, metric=METRIC.label),
        }
        drafts = {path: path.with_name(f".new-{path.name}") for path in texts}
        for path, text in texts.items():
            undo.callback(drafts[path].unlink, missing_ok=True)
            drafts[path].write_text(text, encoding="utf-8")
        recipe, profile = load_recipe(str(drafts[file])), load_profile(str(drafts[device_file]))
        segment_stops(recipe, sizes["train"])
        width_choices(inspect_network(recipe, (channels, size, size), len(found.classes)).groups, recipe.prune, profile)
        for path, draft in drafts.items():
            os.replace(draft, path)
        undo.pop_all()
    lines = [_counts(found, sizes), *depth, *_warnings(found, sizes, drop)]
    lines.append(
        f"{epochs} epochs of {steps} steps: about {max(1, ceil(PASSES * epochs * steps * seconds / 60))} min of training on two cores (a rough estimate)"
    )
    if ask.model is None:
        lines.append(f"{code} {'is a small network to start from' if fresh else 'was there and is used'}")
    return Written((file, device_file, *([code] if fresh else [])), tuple(lines))


def choose_drop(test_images: int) -> tuple[float, str]:
    """Return an accuracy gate that so many test images can prove, and why, in comment lines."""
    least = least_provable_drop(test_images)
    drop = max(LEAST_DROP, ceil(100 * least_provable_drop(test_images, ALIKE)) / 100)
    why = (
        f"Largest allowed drop of {METRIC.label} from the dense network to the engine: "
        f"the upper end of its 95 % interval on the {test_images} test images must not be higher.\n"
        f"{test_images} images cannot prove a drop below {least:.3f}, even if none changes its class; {LEAST_DROP} needs {images_to_prove(LEAST_DROP)} images."
    )
    return drop, why


def _require_free(files: Sequence[Path], *, force: bool) -> None:
    there = [str(file) for file in files if file.exists()]
    if there and not force:
        raise ConfigError(describe("a file is there already", given=", ".join(there), allowed="new files", fix="choose another name, or give --force"))
    folder = next(place for place in (files[0].parent, *files[0].parent.parents) if place.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(describe("files cannot be written there", given=folder, allowed="a folder that you may write to", fix="choose another one"))


def _look_at(found: Folder) -> tuple[int, int, tuple[str, ...]]:
    """Return a side in pixels and the channels that fit the images, and what is white in those of more than 8 bits, a sentence each.

    Raises:
        ConfigError: One cannot be opened, or it cannot be told what is white in it.
    """
    chosen = found.images[:: ceil(len(found.images) / OPENED)]
    sides, grey, broken = [], True, []
    for image in chosen:
        try:
            with quietly_opened(image.path) as opened:
                sides.append(min(opened.size))
                grey = grey and (opened.mode in ("1", "L") or kind_of(opened) in ("grey", "fractions"))
        except UNREADABLE as error:
            broken.append(f"{image.path} ({error})")
    deep = read_values(chosen, broken)
    require_readable(list(dict.fromkeys(broken)), len(chosen))
    middle = statistics.median(sides)
    return max((side for side in SIDES if side <= middle), default=SIDES[0]), 1 if grey else 3, find_depth(deep).sentences


def _labels(found: Folder) -> tuple[np.ndarray, int, torch.Tensor | None]:
    labels = np.array([image.label for image in found.images])
    return labels, len(labels), None if found.images[0].part is None else torch.tensor([image.part for image in found.images])


def _epochs(steps: int, seconds: float) -> int:
    """Return enough epochs to learn in, fewer where they would take too long here."""
    enough, affordable = ceil(STEPS / steps), int(60 * MINUTES / (PASSES * steps * seconds))
    return max(EPOCHS[0], min(enough, affordable, EPOCHS[1]))


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.-]+", "-", text.lower()).strip("-.") or "mine"


def _counts(found: Folder, sizes: dict[str, int]) -> str:
    counts = found.counts()
    shown = ", ".join(f"{visible(name, keep='')} {count}" for name, count in list(counts.items())[:12]) + (
        f" and {len(counts) - 12} more classes" if len(counts) > 12 else ""
    )
    return f"{len(found.images)} images: {shown}; {', '.join(f'{count} for {part}' for part, count in sizes.items())}"


def _warnings(found: Folder, sizes: dict[str, int], drop: float) -> list[str]:
    counts, lines = found.counts(), []
    counts = {visible(name, keep=""): count for name, count in counts.items()}
    few, many = min(counts, key=lambda name: counts[name]), max(counts, key=lambda name: counts[name])
    if found.others:
        lines.append(f"warning: {passed_over(found)}")
    if counts[many] > 5 * counts[few]:
        lines.append(
            f"warning: {many} has {counts[many]} images, {few} only {counts[few]}: a network that never predicts {few} can still reach a high {METRIC.label}"
        )
    if counts[few] < 20:
        lines.append(f"warning: {few} has {counts[few]} images; a network learns little from fewer than 20")
    if drop > LEAST_DROP:
        few_images = f"{sizes['test']} test images cannot prove much less; a gate of {LEAST_DROP} needs several hundred"
        lines.append(f"warning: the accuracy gate is {drop:g}, because {few_images}")
    return lines
