"""Random changes of training images, by torchvision's `transforms.v2`. Masks move with their images; batches may be mixed."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from bonsai.profiles.errors import ConfigError, describe, suggestion
from bonsai.stages.data.feeding import Batch
from bonsai.stages.data.pixels import IGNORED, array_type
from bonsai.stages.imports.user_code import say_what
from bonsai.stages.tasks.registry import task_named
from bonsai.stages.tasks.task import DataSpec
from bonsai.stages.training.config import AugmentConfig, Transform, named

PRESETS: dict[str, tuple[Transform, ...]] = {
    "light": (
        {"RandomAffine": {"degrees": 10, "translate": [0.06, 0.06], "scale": [0.9, 1.1], "interpolation": "bilinear"}},
        {"ColorJitter": {"brightness": 0.2, "contrast": 0.2}},
    ),
    "imagenet": ({"RandomResizedCrop": {"scale": [0.35, 1.0]}}, "RandomHorizontalFlip", {"ColorJitter": {"brightness": 0.2, "contrast": 0.2}}),
    "randaugment": ({"RandomResizedCrop": {"scale": [0.35, 1.0]}}, "RandomHorizontalFlip", "RandAugment"),
    "mixup": ({"MixUp": {"alpha": 0.2}},),
    "cutmix": ({"CutMix": {"alpha": 1.0}},),
}
"""Lists of transforms by name. `light` mirrors nothing, so that it fits letters and digits too."""
MIXING = ("MixUp", "CutMix")
"""Transforms of whole batches. Of several, one is drawn for each batch."""
MIXED_TASKS = ("classification", "multi_label")
"""Tasks whose loss takes targets between two classes."""
NESTED = "transforms"
"""Argument of `RandomApply`, `RandomChoice` and `RandomOrder`: a list like the whole."""
OTHER_WORK = {
    *("Transform", "Lambda", "Compose", "Identity", "LinearTransformation", "Normalize", "FiveCrop", "TenCrop", "UniformTemporalSubsample"),
    *("ToImage", "ToTensor", "ToPILImage", "ToPureTensor", "PILToTensor", "ToDtype", "ConvertImageDtype"),
    *("ConvertBoundingBoxFormat", "ClampBoundingBoxes", "SanitizeBoundingBoxes", "ClampKeyPoints", "SanitizeKeyPoints", "SetClampingMode"),
}
"""Transforms that change no image at random, need a function, or do what a `Preprocess` does."""

SampleChange = Callable[..., Any]


class Augmentation:
    """Changes samples and batches at random.

    Args:
        changes: Transforms of a sample, in their order.
        mixers: Transforms of a batch.
        num_classes: Number of outputs.
        masks: Whether targets are masks (h, w), which move with their images.
    """

    def __init__(self, changes: Sequence[SampleChange], mixers: Sequence[SampleChange], num_classes: int, *, masks: bool) -> None:
        self._changes, self.mixers, self._num_classes, self._masks = changes, mixers, num_classes, masks

    def of_sample(self, image: torch.Tensor, target: Any) -> tuple[torch.Tensor, Any]:
        """Return an image, (c, h, w), and its target, changed; a mask (h, w) moves with its image."""
        if not self._masks:
            for change in self._changes:
                image = change(image)
            return image, target
        from torchvision import tv_tensors  # here, as `transforms.v2` below

        found: tuple[torch.Tensor, torch.Tensor] = (tv_tensors.Image(image), tv_tensors.Mask(target))
        for change in self._changes:
            found = change(*found)
        return found[0].as_subclass(torch.Tensor), found[1].as_subclass(torch.Tensor)

    def of_batch(self, images: torch.Tensor, targets: torch.Tensor) -> Batch:
        """Return a batch, mixed where it is asked for: images float32 in [0, 1], targets (n, outputs) float32."""
        if not self.mixers:
            return images, targets
        if images.dtype == torch.uint8:
            images = images.float() / 255
        if targets.ndim == 1:
            targets = functional.one_hot(targets, self._num_classes)
        mixer = self.mixers[int(torch.randint(len(self.mixers), ()))] if len(self.mixers) > 1 else self.mixers[0]
        mixed: Batch = mixer(images, targets.float())
        return mixed


def make_augmentation(config: AugmentConfig | tuple[Transform, ...], spec: DataSpec, *, masks: bool = False) -> Augmentation | None:
    """Return what changes images at random; None where nothing is asked for.

    What comes in from outside is 0: black, before a `Preprocess`; of a mask it is 255, which does not count.

    Args:
        config: What is asked for.
        spec: Size and type of the images, and number of outputs.
        masks: Whether the targets are masks (h, w), which move with their images.

    Raises:
        ConfigError: There is no such transform or argument, or it does not fit these samples.
    """
    if isinstance(config, AugmentConfig):
        if not (config.rotate or config.shift or config.zoom):
            return None
        shift, scale = (config.shift, config.shift), (1 - config.zoom, 1 + config.zoom)
        config = ({"RandomAffine": {"degrees": config.rotate, "translate": shift, "scale": scale, "interpolation": "bilinear"}},)
    asked = [one for name in config for one in (PRESETS.get(name, (name,)) if isinstance(name, str) else (name,))]
    if not asked:
        return None
    changes: list[SampleChange] = []
    mixers: list[SampleChange] = []
    for one in asked:
        (mixers if next(iter(named(one))) in MIXING else changes).append(_make(one, spec))
    made = Augmentation(changes, mixers, spec.num_classes, masks=masks)
    _try(made, spec, asked, masks=masks)
    return made


def require_augmentation(config: AugmentConfig | tuple[Transform, ...], spec: DataSpec, task: str) -> None:
    """Check that samples of a task can be changed as a recipe asks.

    Raises:
        ConfigError: As for `make_augmentation`; or batches cannot be mixed, since the task has other targets.
    """
    made = make_augmentation(config, spec, masks=task_named(task).moves_with_image)
    if made is not None and made.mixers and task not in MIXED_TASKS:
        fix = "leave mixup and cutmix out"
        raise _refusal("batches of this task cannot be mixed", task, f"mixup and cutmix for {' and '.join(MIXED_TASKS)}", fix)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw the CPU's random numbers from a seed meanwhile: the transforms take no generator. Afterwards all others go on as if none had been drawn."""
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)  # not `torch.manual_seed`, which seeds the GPUs as well
        yield


def _known() -> dict[str, type]:
    from torchvision.transforms import v2  # here, for its import takes a second that only a training should wait for

    every = {name: value for name, value in vars(v2).items() if inspect.isclass(value) and issubclass(value, v2.Transform)}
    return {name: every[name] for name in sorted(every) if name not in OTHER_WORK}


def _make(one: Transform, spec: DataSpec) -> SampleChange:
    """Return a transform by its name and arguments."""
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    if len(named(one)) != 1:
        raise _refusal("an entry names more than one transform", one, "a name, or one name with its arguments", "make it several entries of the list")
    ((name, given),) = named(one).items()
    known = _known()
    if name not in known:
        allowed = f"the presets {', '.join(PRESETS)}; {', '.join(known)}"
        raise _refusal(f"no transform of this name{suggestion(name, [*PRESETS, *known])}", name, allowed, "use one of these names")
    takes = [key for key in inspect.signature(known[name].__init__).parameters if key not in ("self", "labels_getter", "lambd", "num_classes")]  # type: ignore[misc]
    unknown = [key for key in given if key not in takes]
    if unknown:
        raise _refusal(f"{name} has no argument of this name{suggestion(unknown[0], takes)}", unknown[0], ", ".join(takes) or "none", "correct or drop it")
    arguments = dict(given)
    if "size" in takes and len(spec.image_shape) == 3:
        arguments.setdefault("size", list(spec.image_shape[1:]))
    if "fill" in takes:
        arguments["fill"] = {tv_tensors.Mask: IGNORED, "others": given.get("fill")}  # None is zero without a mask, which would cost as much again
    try:
        for key, enum in (("interpolation", v2.InterpolationMode), ("policy", v2.AutoAugmentPolicy)):
            if key in arguments:
                arguments[key] = enum(arguments[key])
        if NESTED in arguments:
            arguments[NESTED] = [_make(inner, spec) for inner in arguments[NESTED]]
        change: SampleChange = known[name](**arguments)
    except (TypeError, ValueError) as error:
        shown = ", ".join(f"{key}: {value}" for key, value in given.items()) or "no arguments"
        raise _refusal(f"{name} does not take these arguments", f"{shown} ({error})", ", ".join(takes), "see torchvision's transforms.v2") from error
    return change


def _try(made: Augmentation, spec: DataSpec, asked: Sequence[Transform], *, masks: bool) -> None:
    """Change a sample, and a batch, to see whether they keep their shapes."""
    of_bytes = spec.preprocess is not None and array_type(spec.preprocess) == np.uint8
    image = torch.zeros(spec.image_shape, dtype=torch.uint8 if of_bytes else torch.float32)
    names = ", ".join(name for one in asked for name in named(one))
    try:
        with seeded(0):
            found, _ = made.of_sample(image, torch.zeros(spec.image_shape[1:], dtype=torch.uint8) if masks else 0)
            made.of_batch(found[None].repeat(2, *(1,) * found.ndim), torch.zeros(2, dtype=torch.int64))
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        allowed = "transforms of images (channels, height, width), and of masks (height, width) where there are any"
        raise _refusal("the transforms do not fit the samples", f"{names} on {spec.image_shape}: {say_what(error)}", allowed, "leave out what fails") from error
    if found.shape != image.shape or found.dtype != image.dtype:
        given = f"{names}: {list(image.shape)} {image.dtype} becomes {list(found.shape)} {found.dtype}"
        raise _refusal("the transforms change the shape or the type of images", given, "transforms that keep both", "leave out what changes them")


def _refusal(problem: str, given: object, allowed: object, fix: str) -> ConfigError:
    return ConfigError(describe(f"training.augment: {problem}", given=given, allowed=allowed, fix=fix))
