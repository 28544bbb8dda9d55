"""`bonsai init`: a recipe, a target and a network to start from, chosen to fit the user's images and checked before they are put in place."""

import os
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from math import ceil
from pathlib import Path
from typing import NamedTuple

from torch import nn

from bonsai.pipeline.recipes.recipe import load_recipe
from bonsai.pipeline.run.inspecting import inspect_network
from bonsai.pipeline.run.trunk import segment_stops
from bonsai.pipeline.starting.classes import find_classes
from bonsai.pipeline.starting.gates import LEAST_DROP, choose_drop
from bonsai.pipeline.starting.masks import find_masks
from bonsai.pipeline.starting.networks import NETWORKS
from bonsai.pipeline.starting.pairs import find_pairs
from bonsai.pipeline.starting.samples import Samples, Table
from bonsai.pipeline.starting.text import Choices, device_text, fine_tuning_lines, folder_lines, pixel_lines, prune_lines, recipe_text, table_lines
from bonsai.pipeline.starting.trained import RATE, WARMUP, epochs_of, read_trained, size_of
from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.loader import load_profile
from bonsai.stages.data.config import DataConfig
from bonsai.stages.data.registry import TEST
from bonsai.stages.imports.registry import make_importable
from bonsai.stages.networks.config import PRETRAINED, ModelConfig
from bonsai.stages.networks.counting import count_macs
from bonsai.stages.networks.factories import of_library
from bonsai.stages.networks.registry import build_network, require_outputs
from bonsai.stages.quantization.keeping import quantizable
from bonsai.stages.selection.choices import width_choices
from bonsai.stages.tasks.registry import learning_of, task_named
from bonsai.stages.tasks.task import DataSpec
from bonsai.stages.training.config import TrainConfig

RECIPE_FILE, MODEL_FILE = "my-recipe.yaml", "my_model.py"
BATCHES, LEAST_STEPS_PER_EPOCH = (64, 32, 16, 8), 8
STEPS, STEPS_PER_CLASS = 600, 25
"""Optimizer steps in which a small network that starts from nothing usually learns a small data set: so many, and more where there are many classes.

ResNet-8 on 6,000 drawn images of 40 and of 62 classes: 43 and 7 % after 650 steps, 87 and 23 % after 1,050, 97 and 62 % after 1,600."""
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


class Ask(NamedTuple):
    """The arguments of `init`.

    Attributes:
        place: Folder, or the recipe file to write.
        data: Folder of images by class, or of images and masks (`pairs.py`).
        model: Name or import string; None writes a network too.
        size: Side of square images in pixels, or (height, width); None chooses.
        profile: Target that the new one extends.
        force: Whether an existing recipe and target are replaced.
        weights: Trained weights that the recipe fine-tunes: a file, or ``pretrained``; None trains from the beginning.
        masks: Folder of masks; `data` is that of their images then. None looks for both in `data`.
    """

    place: Path
    data: Path
    model: str | None = None
    size: int | tuple[int, int] | None = None
    profile: str = "local-cpu"
    force: bool = False
    weights: str | None = None
    masks: Path | None = None


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
    """Write a recipe, its target, a table of images and masks, and where none was given a network, so that `bonsai run` works as written.

    Before anything is written, `init` looks at images and masks, imports the factory and calls it with `in_channels` and `num_classes`. The
    network must have the outputs that the task needs, must be traceable, and must have channels to prune.

    Raises:
        ConfigError: Something that was given cannot be used, or a file is there already.
    """
    file = ask.place if ask.place.suffix in (".yaml", ".yml") else ask.place / RECIPE_FILE
    folder, device_file = file.parent, file.with_name(f"{file.stem.removesuffix('-recipe')}-device.yaml")
    _require_free((file, device_file), force=ask.force)
    _require_network(ask, folder / MODEL_FILE)
    parent = load_profile(ask.profile)
    data = DataConfig(name="image_folder", validation=0.15, test=0.25)
    samples, new = _find_samples(ask, data), not folder.exists()
    task, seen, classes = task_named(samples.task), samples.seen, samples.classes
    with ExitStack() as undo:
        for missing in reversed([place for place in (folder, *folder.parents) if not place.exists()]):
            missing.mkdir()
            undo.callback(missing.rmdir)
        if new:
            undo.callback(shutil.rmtree, folder / "__pycache__", ignore_errors=True)  # of the network that is imported
        code = folder / MODEL_FILE
        fresh = ask.model is None and not code.exists()
        if fresh:
            code.write_text(NETWORKS[samples.task], encoding="utf-8")
            undo.callback(code.unlink)
        model = ask.model or f"{code.stem}:build"
        for place in dict.fromkeys((folder.resolve(), Path.cwd())):
            make_importable(place, model)
        trained = read_trained(ask.weights, model)
        size = _pair(ask.size) or (seen.size if trained is None else size_of(trained, model, seen.square))
        channels = trained.channels or seen.channels if trained else seen.channels
        shape = (channels, *size)
        network = build_network(ModelConfig(name=model), shape, len(classes))
        require_outputs(network, DataSpec(shape, len(classes)), learning_of(samples.task, TrainConfig()))
        layers = _layers(network, shape)
        batch = next((b for b in BATCHES if samples.parts["train"] >= b * LEAST_STEPS_PER_EPOCH), BATCHES[-1])
        steps = max(samples.parts["train"] // batch, 1)
        seconds = PASS_MACS * batch * count_macs(network.eval(), shape) / MACS_PER_SECOND
        changes = adapt(network, steps) if adapt else Changes((), None, ())
        anew = trained.fresh_layers(network, len(classes)) if trained else ()
        epochs = changes.epochs or (epochs_of(steps) if trained else _epochs(steps, seconds, len(classes)))
        prune = fine_tuning_lines(layers[0]) if trained and not anew else prune_lines(layers[0])
        rate = 0.05 * (batch / BATCHES[0]) ** 0.5
        pixels = pixel_lines(size, channels, normalised=trained is not None and of_library(model) is None)
        root = _from(folder, samples.root)
        choices = Choices(
            file=file.name,
            name=_slug(file.stem),
            metric=task.metric.label,
            device_file=device_file.name,
            model=model,
            task=samples.task,
            data=table_lines(samples.table, root, classes, pixels, data) if samples.table else folder_lines(root, pixels, data),
            found=samples.found,
            batch_size=batch,
            steps=steps,
            epochs=epochs,
            lr=round(rate * RATE, 4) if trained else round(rate, 3),
            warmup_epochs=WARMUP if trained else max(1.0, round(epochs / 20, 1)),
            qat_epochs=max(2, epochs // 10),
            qat_lr=round(rate, 3) / 10,
            prune=changes.prune or prune,
            ends=(layers[0], layers[-1]),
            balanced=samples.balanced or trained is not None,
            weights=ask.weights if ask.weights in (None, PRETRAINED) else _from(folder, Path(ask.weights)),
            reference="trained" if anew else "given",
            notes=changes.notes,
        )
        drop, why = choose_drop(samples)
        own = BUDGET if parent.target.device.is_host else None
        extends = os.path.relpath(ask.profile, folder) if ask.profile.endswith((".yaml", ".yml")) else ask.profile
        texts = {
            file: recipe_text(choices),
            device_file: device_text(_slug(device_file.stem), extends, budget=own, parent=parent.budget, drop=drop, why=why, metric=task.metric.label),
        }
        if samples.table and not _is_there(samples.table):
            _require_free((samples.table.file,), force=ask.force)
            texts[samples.table.file] = samples.table.text
        drafts = {path: path.with_name(f".new-{path.name}") for path in texts}
        for path, text in texts.items():
            undo.callback(drafts[path].unlink, missing_ok=True)
            drafts[path].write_text(text, encoding="utf-8")
        recipe, profile = load_recipe(str(drafts[file])), load_profile(str(drafts[device_file]))
        segment_stops(recipe, samples.parts["train"])
        width_choices(inspect_network(recipe, shape, len(classes)).groups, recipe.prune, profile)
        for path, draft in drafts.items():
            os.replace(draft, path)
        undo.pop_all()
    counted, *warnings = samples.facts
    lines = [counted, *seen.depth, *warnings]
    if drop > LEAST_DROP:
        few_images = f"{samples.parts['test']} test images cannot prove much less; a gate of {LEAST_DROP} needs several hundred"
        lines.append(f"warning: the accuracy gate is {drop:g}, because {few_images}")
    if trained and TEST not in samples.given:
        seen_before = "if the weights were trained with them, the given network looks better than it is: put images that it has not seen into test/"
        lines.append(f"warning: the test images are taken from {'train/' if samples.given else 'all images'}; {seen_before}")
    if anew:
        hint = "; if they have more classes than your masks hold, name all of them in data.options.classes" if samples.table else ""
        lines.append(f"the weights are for other classes than these {len(classes)}: {', '.join(anew)} begins with random ones{hint}")
    passes = 1.0 if trained and not anew else PASSES
    minutes = max(1, ceil(passes * epochs * steps * seconds / 60))
    more = "; up to twice that where the first branch misses the budget or the gates"
    lines.append(f"{epochs} epochs of {steps} steps: about {minutes} min of training on two cores (a rough estimate{more})")
    if not (trained or changes.epochs) and epochs < (usual := _usual_epochs(steps, len(classes))):
        lines.append(f"warning: {len(classes)} classes usually take {usual} epochs; fewer were chosen to save time: raise training.epochs where you can")
    if ask.model is None:
        lines.append(f"{code} {'is a small network to start from' if fresh else 'was there and is used'}")
    return Written((*texts, *([code] if fresh else [])), tuple(lines))


def _find_samples(ask: Ask, data: DataConfig) -> Samples:
    """Return the images with their masks, where there are any, else images by class.

    Raises:
        ConfigError: They cannot be used.
    """
    root = ask.data.expanduser()
    pairs = find_pairs(root, ask.masks.expanduser() if ask.masks else None)
    return find_masks(pairs, data) if pairs else find_classes(root, data)


def _pair(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """Return height and width."""
    return (size, size) if isinstance(size, int) else size


def _is_there(table: Table) -> bool:
    return table.file.exists() and table.file.read_bytes() == table.text.encode()


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


def _epochs(steps: int, seconds: float, classes: int) -> int:
    """Return enough epochs to learn in, fewer where they would take too long here."""
    affordable = int(60 * MINUTES / (PASSES * steps * seconds))
    return max(EPOCHS[0], min(_usual_epochs(steps, classes), affordable))


def _usual_epochs(steps: int, classes: int) -> int:
    """Return enough epochs to learn in."""
    return min(ceil(max(STEPS, STEPS_PER_CLASS * classes) / steps), EPOCHS[1])


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.-]+", "-", text.lower()).strip("-.") or "mine"
