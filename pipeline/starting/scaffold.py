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
from torch import nn

from bonsai.pipeline.recipes.recipe import load_recipe
from bonsai.pipeline.run.inspecting import inspect_network
from bonsai.pipeline.run.trunk import segment_stops
from bonsai.pipeline.starting.text import MODEL, Choices, device_text, fine_tuning_lines, prune_lines, recipe_text
from bonsai.pipeline.starting.trained import RATE, WARMUP, epochs_of, read_trained, side_of
from bonsai.profiles.errors import ConfigError, describe, visible
from bonsai.profiles.loader import load_profile
from bonsai.stages.data.config import DataConfig
from bonsai.stages.data.depth import find_depth
from bonsai.stages.data.files import UNREADABLE, read_values, require_readable
from bonsai.stages.data.image_folder import Folder, passed_over, scan_folder
from bonsai.stages.data.pixels import kind_of, quietly_opened
from bonsai.stages.data.registry import TEST
from bonsai.stages.data.splitting import split_samples
from bonsai.stages.imports.registry import make_importable
from bonsai.stages.networks.config import PRETRAINED, ModelConfig
from bonsai.stages.networks.counting import count_macs
from bonsai.stages.networks.factories import of_library
from bonsai.stages.networks.registry import build_network, require_outputs
from bonsai.stages.quantization.keeping import quantizable
from bonsai.stages.selection.choices import width_choices
from bonsai.stages.tasks.intervals import images_to_prove, least_provable_drop
from bonsai.stages.tasks.registry import DEFAULT, learning_of, task_named
from bonsai.stages.tasks.task import DataSpec
from bonsai.stages.training.config import TrainConfig

METRIC = task_named(DEFAULT).metric
"""Folders of images by class are for classification."""
RECIPE_FILE, MODEL_FILE = "my-recipe.yaml", "my_model.py"
SIDES = (32, 48, 64)
"""Sides in pixels to choose from: a CPU trains on them in minutes; larger ones are the user's choice."""
MASKS = ("mask", "masks")
"""Names of folders that hold the targets of a segmentation and no class."""
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
PASSES = 2.2
"""Total training in dense cycles: the trunk, and a branch whose cut and recovery cost what a cycle and its fine-tuning would."""
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
        weights: Trained weights that the recipe fine-tunes: a file, or ``pretrained``; None trains from the beginning.
    """

    place: Path
    data: Path
    model: str | None = None
    size: int | None = None
    profile: str = "local-cpu"
    force: bool = False
    weights: str | None = None


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
    _require_network(ask, folder / MODEL_FILE)
    found = scan_folder(ask.data.expanduser())
    parent = load_profile(ask.profile)
    seen, new = _look_at(found), not folder.exists()
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
        trained = read_trained(ask.weights, model)
        size = ask.size or (seen.side if trained is None else side_of(trained, model, seen.square))
        channels = trained.channels or seen.channels if trained else seen.channels
        data = DataConfig(name="image_folder", validation=0.15, test=0.25)
        sizes = {name: len(indices) for name, indices in split_samples(*_labels(found), len(found.images), found.classes, data).items()}
        network = build_network(ModelConfig(name=model), (channels, size, size), len(found.classes))
        require_outputs(network, DataSpec((channels, size, size), len(found.classes)), learning_of(DEFAULT, TrainConfig()))
        layers = _layers(network, (channels, size, size))
        batch = next((b for b in BATCHES if sizes["train"] >= b * LEAST_STEPS_PER_EPOCH), BATCHES[-1])
        steps = max(sizes["train"] // batch, 1)
        seconds = PASS_MACS * batch * count_macs(network.eval(), (channels, size, size)) / MACS_PER_SECOND
        changes = adapt(network, steps) if adapt else Changes((), None, ())
        anew = trained.fresh_layers(network, len(found.classes)) if trained else ()
        epochs = changes.epochs or (epochs_of(steps) if trained else _epochs(steps, seconds))
        prune = fine_tuning_lines(layers[0]) if trained and not anew else prune_lines(layers[0])
        rate = 0.05 * (batch / BATCHES[0]) ** 0.5
        choices = Choices(
            file=file.name,
            name=_slug(file.stem),
            metric=METRIC.label,
            device_file=device_file.name,
            model=model,
            root=_from(folder, ask.data),
            size=size,
            channels=channels,
            validation=data.validation,
            test=data.test,
            found=f"{len(found.images)} images of {len(found.classes)} classes",
            batch_size=batch,
            steps=steps,
            epochs=epochs,
            lr=round(rate * RATE, 4) if trained else round(rate, 3),
            warmup_epochs=WARMUP if trained else max(1.0, round(epochs / 20, 1)),
            qat_epochs=max(2, epochs // 10),
            qat_lr=round(rate, 3) / 10,
            prune=changes.prune or prune,
            ends=(layers[0], layers[-1]),
            normalised=trained is not None and of_library(model) is None,
            weights=ask.weights if ask.weights in (None, PRETRAINED) else _from(folder, Path(ask.weights)),
            reference="trained" if anew else "given",
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
    lines = [_counts(found, sizes), *seen.depth, *_warnings(found, sizes, drop)]
    if trained and TEST not in {image.part for image in found.images}:
        seen_before = "if the weights were trained with them, the given network looks better than it is: put images that it has not seen into test/"
        lines.append(f"warning: the test images are taken from {'train/' if found.images[0].part is not None else 'all images'}; {seen_before}")
    if anew:
        lines.append(f"the weights are for other classes than these {len(found.classes)}: {', '.join(anew)} begins with random ones")
    passes = 1.0 if trained and not anew else PASSES
    minutes = max(1, ceil(passes * epochs * steps * seconds / 60))
    more = "; up to twice that where the first branch misses the budget or the gates"
    lines.append(f"{epochs} epochs of {steps} steps: about {minutes} min of training on two cores (a rough estimate{more})")
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


def _layers(network: nn.Module, image_shape: tuple[int, ...]) -> tuple[str, ...]:
    """Return the names of the convolutions and linear layers, in the order of execution.

    Raises:
        ConfigError: There are none.
    """
    layers = quantizable(network, image_shape)
    if not layers:
        given, fix = f"a {type(network).__name__} of other operations", "build it of torch's modules"
        raise ConfigError(describe("the network has no layer to prune or quantise", given=given, allowed="convolutions and linear layers", fix=fix))
    return layers


def _from(folder: Path, place: Path) -> str:
    """Return a path as seen from the recipe's folder."""
    place = place.expanduser()
    return str(place) if place.is_absolute() else os.path.relpath(place, folder)


def _require_network(ask: Ask, code: Path) -> None:
    """Refuse weights of a network that nobody names.

    Raises:
        ConfigError: There are weights, and no network.
    """
    if ask.weights is not None and ask.model is None and not code.exists():
        allowed = "--model NAME: timm/NAME, torchvision/NAME, module:function, or a name of `bonsai list models`"
        raise ConfigError(
            describe("--weights: the network that they are of is not named", given=ask.weights, allowed=allowed, fix=f"add --model, or put {code.name} there")
        )


def _require_free(files: Sequence[Path], *, force: bool) -> None:
    there = [str(file) for file in files if file.exists()]
    if there and not force:
        raise ConfigError(describe("a file is there already", given=", ".join(there), allowed="new files", fix="choose another name, or give --force"))
    folder = next(place for place in (files[0].parent, *files[0].parent.parents) if place.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(describe("files cannot be written there", given=folder, allowed="a folder that you may write to", fix="choose another one"))


class _Seen(NamedTuple):
    """What the images are.

    Attributes:
        side: Side in pixels, of `SIDES`, that fits them.
        square: Side of all of them where they are squares of one size, else None.
        channels: 1 or 3.
        depth: Sentences that say which value is white in images of more than 8 bits.
    """

    side: int
    square: int | None
    channels: int
    depth: tuple[str, ...]


def _look_at(found: Folder) -> _Seen:
    """Open the images, or a part of many.

    Raises:
        ConfigError: One cannot be opened, or it cannot be told what is white in it.
    """
    chosen = found.images[:: ceil(len(found.images) / OPENED)]
    sizes, grey, broken = [], True, []
    for image in chosen:
        try:
            with quietly_opened(image.path) as opened:
                sizes.append(opened.size)
                grey = grey and (opened.mode in ("1", "L") or kind_of(opened) in ("grey", "fractions"))
        except UNREADABLE as error:
            broken.append(f"{image.path} ({error})")
    deep = read_values([image.path for image in chosen], broken)
    require_readable(list(dict.fromkeys(broken)), len(chosen))
    middle = statistics.median(min(size) for size in sizes)
    (width, height), *others = set(sizes)
    return _Seen(
        side=max((side for side in SIDES if side <= middle), default=SIDES[0]),
        square=width if width == height and not others else None,
        channels=1 if grey else 3,
        depth=find_depth(deep).sentences,
    )


def _labels(found: Folder) -> tuple[np.ndarray, np.ndarray | None]:
    labels = np.array([image.label for image in found.images])
    return labels, None if found.images[0].part is None else np.array([image.part for image in found.images])


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
    if masks := [name for name in counts if name.lower() in MASKS]:
        lines.append(f"warning: the folder {masks[0]} is taken for a class; for a segmentation write a table and a recipe: docs/trained-network.md has both")
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
