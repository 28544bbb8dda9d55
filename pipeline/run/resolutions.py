"""Sizes of images that a pruned network may take beside the dataset's own: the network at each, and which one a branch takes."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from bonsai.pipeline.recipes.recipe import Recipe
from bonsai.pipeline.run.inspecting import Network, inspect_network
from bonsai.pipeline.run.targets import ReadyTarget
from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.schema import HardwareProfile
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.graph.onnx_graph import Dialect
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.registry import build_network
from bonsai.stages.networks.resizing import require_resizable
from bonsai.stages.pruning.block_losses import BlockLosses
from bonsai.stages.selection.resolution_records import Resolution, describe_resolutions
from bonsai.stages.selection.resolutions import choose_resolution
from bonsai.stages.steps.shrink import shrink
from bonsai.stages.steps.weigh_resolutions import weigh_resolutions
from bonsai.stages.store.store import Step
from bonsai.stages.training.batches import require_batches
from bonsai.stages.training.progress import say, silence

TASKS = ("classification", "multi_label", "regression")
"""Tasks whose targets do not change with the size of the images."""


def smaller_networks(
    recipe: Recipe, dataset: Dataset, network: Network, profiles: Iterable[HardwareProfile], dialects: Iterable[Dialect], *, compared: bool
) -> tuple[Network, ...]:
    """Return the recipe's network at every smaller size of `prune.resolutions`, the largest first; nothing where there is none.

    Args:
        recipe: Names the sizes.
        dataset: Images of the full size.
        network: The network at the full size.
        profiles: The targets.
        dialects: As for `inspect_network`.
        compared: Whether the engines are compared with earlier packages.

    Raises:
        ConfigError: The data, the task, a profile or the network does not go with another size.
    """
    if not recipe.prune.resolutions:
        return ()
    _require_possible(recipe, dataset, profiles, compared=compared)
    built = build_network(recipe.model, dataset.image_shape, len(dataset.classes))
    found = []
    for size in sizes_of(recipe.prune.resolutions, dataset.image_shape):
        shape = (dataset.image_shape[0], *size)
        require_resizable(built, dataset.image_shape, shape)
        require_batches(dataset.model_copy(update={"preprocess": dataset.preprocess.at(size)}), recipe.training)
        with silence():  # what was said of the full size is true of this one
            one = inspect_network(recipe, shape, len(dataset.classes), dialects)
        if one.groups != network.groups:
            raise ConfigError(
                describe(
                    f"prune.resolutions: other channels can be pruned with images of {'x'.join(map(str, size))}",
                    given=_difference(network, one),
                    allowed="the same groups of channels at every size",
                    fix="leave this size out",
                )
            )
        found.append(one)
    return tuple(found)


def sizes_of(resolutions: Collection[int], image_shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return heights and widths below the full ones, the largest first.

    Args:
        resolutions: Lengths of the shorter side.
        image_shape: (channels, height, width) of the full size; the proportions stay.

    Raises:
        ConfigError: A length is above the full one.
    """
    _, height, width = image_shape
    shorter = min(height, width)
    above = [side for side in resolutions if side > shorter]
    if above:
        raise ConfigError(
            describe(
                "prune.resolutions: images are never made larger",
                given=", ".join(map(str, above)),
                allowed=f"at most {shorter}, the shorter side of the dataset's images of {height}x{width}",
                fix="leave larger sizes out, or prepare larger images (data.options.size)",
            )
        )
    return [(round(height * side / shorter), round(width * side / shorter)) for side in sorted(set(resolutions) - {shorter}, reverse=True)]


class Sized(NamedTuple):
    """The size of images that a branch takes.

    Attributes:
        target: The target at that size.
        dataset: The images.
        resolutions: All sizes among which it was chosen; empty where there is no choice.
    """

    target: ReadyTarget
    dataset: Dataset
    resolutions: tuple[Resolution, ...] = ()


def choose_size(recipe: Recipe, dataset: Dataset, target: ReadyTarget, segment: Checkpoint, blocks: BlockLosses | None, step: Step) -> Sized:
    """Return the size of images that is worth most within a target's budget: the full one, if there is no other.

    Args:
        recipe: The training, and the criterion.
        dataset: Images of the full size.
        target: The target at the full size, with those at smaller ones.
        segment: The trunk's segment at which the branch leaves.
        blocks: What the absence of residual blocks costs.
        step: Runs the stages.
    """
    if not target.smaller:
        return Sized(target, dataset)
    smaller = tuple(step(shrink, dataset=dataset, size=each.network.image_size) for each in target.smaller)
    weighed = {"dataset": dataset, "smaller": smaller, "training": recipe.training, "criterion": recipe.prune.criterion}
    losses = step(weigh_resolutions, segment=segment, **weighed, groups=tuple(group.name for group in target.groups))
    by_size = {each.network.image_size: each for each in (target, *target.smaller)}
    found = choose_resolution({size: each.chooser for size, each in by_size.items()}, target.scores(segment), losses, blocks)
    say(f"{target.profile.name}: {describe_resolutions(found)}")
    chosen = next(each.size for each in found if each.chosen)
    images = {each.preprocess.image_shape[1:]: each for each in (dataset, *smaller)}
    return Sized(by_size[chosen], images[chosen], found)


def _require_possible(recipe: Recipe, dataset: Dataset, profiles: Iterable[HardwareProfile], *, compared: bool) -> None:
    asked = tuple(profiles)
    tables = [profile.name for profile in asked if profile.tables]
    points = [profile.name for profile in asked if profile.points]
    problems = {
        "series have no resolution": f"samples of shape {dataset.image_shape}" if len(dataset.image_shape) != 3 else "",
        "the task's targets would change with the images": recipe.task if recipe.task not in TASKS else "",
        "a latency table that was measured elsewhere has one size of images only": ", ".join(tables),
        "points are checked with images of one size": ", ".join(points),
        "an earlier package takes images of one size": "--against" if compared else "",
    }
    for problem, given in problems.items():
        if given:
            allowed = f"images, the tasks {', '.join(TASKS)}, no tables and no points in the profile, and no --against"
            raise ConfigError(describe(f"prune.resolutions: {problem}", given=given, allowed=allowed, fix="leave prune.resolutions out"))


def _difference(full: Network, smaller: Network) -> str:
    widths = [{group.name: (group.width, group.block) for group in network.groups} for network in (full, smaller)]
    names = [name for name in {**widths[0], **widths[1]} if widths[0].get(name) != widths[1].get(name)]
    return f"{', '.join(names[:5]) or 'the layers of a group'}: not the same as at the full size"
