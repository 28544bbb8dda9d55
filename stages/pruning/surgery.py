"""Finding coupled channels and cutting them out, with Torch-Pruning's dependency graph.

Torch-Pruning is given explicit channel indices, never ratios; selection and rounding are Bonsai's own.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.imports.leaving_out import left_out
from bonsai.stages.imports.user_code import FAILURES, place_of, say_what
from bonsai.stages.memory import blame_memory
from bonsai.stages.networks.calling import computed_tensors, copy_network, evaluating, running, unfrozen
from bonsai.stages.networks.edits.channels import keep_channels
from bonsai.stages.networks.edits.records import KeepChannels
from bonsai.stages.networks.inspection import random_images
from bonsai.stages.networks.several_outputs import outputs_as_they_are
from bonsai.stages.pruning.groups import Group, Kept, Member
from bonsai.stages.pruning.layers import Layer, num_outputs
from bonsai.stages.pruning.positions import Numbered
from bonsai.stages.pruning.settling import has_batchnorm, settle, wake
from bonsai.stages.pruning.zeroing import VARIES, Uncuttable, outputs, require_equal, variation, varies, zeroed

with left_out("timm"):  # Torch-Pruning imports it for a count of operations that nobody here asks for; it costs two seconds of CPU
    import torch_pruning as tp
    from torch_pruning.dependency.group import Group as LibraryGroup

TRIAL_IMAGES = 4
MOST_POSITIONS = 1_000_000
"""Most entries of one group: each layer counts as often as Torch-Pruning visits it."""
UNDECIDED = "without some of its channels the outputs hardly depend on the image, so that a cut cannot be checked"


def find_groups(network: nn.Module, image_shape: tuple[int, ...]) -> tuple[Group, ...]:
    """Return the groups of channels that may be removed; those that make up the outputs are left out.

    Args:
        network: A dense or pruned network; it is left as it was.
        image_shape: (channels, height, width).
    """
    with evaluating(network):  # a parametrised weight may change its state whenever it is looked at in training: spectral_norm
        return _search(network, image_shape)[0]


def _search(network: nn.Module, image_shape: tuple[int, ...]) -> tuple[tuple[Group, ...], dict[str, str]]:
    """Return the groups, and by the names of layers why their channels make up none."""
    graph = _dependency_graph(network, image_shape)
    names = {module: name for name, module in network.named_modules()}
    groups: dict[str, Group] = {}
    failed: dict[str, str] = {}
    for root, found in _full_groups(graph):
        if isinstance(found, BaseException):
            failed[names[root]] = f"its channels cannot be followed: {say_what(found)}"
            continue
        if any(graph.is_out_channel_pruning_fn(dep.handler) and not dep.target.outputs for dep, _ in found):
            continue
        try:
            members = tuple(
                Member(
                    module=names[item.dep.target.module],
                    side="out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "in",
                    indices=tuple(item.idxs),
                    channels=tuple(item.root_idxs),
                )
                for item in found
                if item.dep.target.module in names
            )
        except ValidationError:
            failed[names[root]] = "its channels cannot be followed: Torch-Pruning gives positions that are no whole numbers"
            continue
        width = len(found[0].idxs)
        name = _first_producer(network, members, width)
        if name is None or name in groups:
            failed[names[root]] = "no layer produces all of these channels, in their order: the network splits, concatenates or mixes them"
        else:
            groups[name] = Group(name=name, width=width, members=tuple(dict.fromkeys(members)))
    order = {name: position for position, name in enumerate(names.values())}
    return tuple(sorted(groups.values(), key=lambda group: order[group.name])), failed


def _full_groups(graph: tp.DependencyGraph) -> Iterator[tuple[nn.Module, Any]]:
    """Yield one layer of each group, with the group of all its channels or with the error that Torch-Pruning raised.

    This is like Torch-Pruning's `get_all_groups`, which stops at the first group that it cannot follow. If a group grows without end, the layers
    that it has reached are skipped: starting from them would fail in the same way.
    """
    visited: set[nn.Module] = set()
    for root in [module for module in graph.module2node if isinstance(module, Layer)]:
        if root in visited:
            continue
        reached: list[tp.Dependency] = []
        try:
            pruner = graph.get_pruner_of_module(root)
            with _bounded(reached):
                found = graph.get_pruning_group(root, pruner.prune_out_channels, list(range(pruner.get_out_channels(root))))
        except FAILURES as error:
            blame_memory(error)
            if isinstance(error, Uncuttable):
                visited.update(dep.target.module for dep in reached if graph.is_out_channel_pruning_fn(dep.handler))
            yield root, error
            continue
        visited.update(dep.target.module for dep, _ in found if graph.is_out_channel_pruning_fn(dep.handler))
        yield root, found


@contextmanager
def _bounded(reached: list[tp.Dependency]) -> Iterator[None]:
    """Stop Torch-Pruning if a group gets more than `MOST_POSITIONS` entries: after some reshapes it goes round in circles without end.

    Entries are looked up in a set. Torch-Pruning's own list would take minutes for a network such as timm's RexNet.

    Args:
        reached: Receives the entries.

    Raises:
        Uncuttable: The group has too many entries.
    """
    add, has, left = LibraryGroup.add_dep, LibraryGroup.has_pruning_op, MOST_POSITIONS
    followed: set[tuple[Any, ...]] = set()

    def count(group: Any, dep: tp.Dependency, idxs: list[Any]) -> None:
        nonlocal left
        left -= len(idxs)
        reached.append(dep)
        followed.add((dep.target, dep.handler, *idxs))
        if left < 0:
            raise Uncuttable("the network reshapes them into ever more positions")
        add(group, dep, idxs)

    LibraryGroup.add_dep = count
    LibraryGroup.has_pruning_op = lambda group, dep, idxs: (dep.target, dep.handler, *idxs) in followed
    try:
        yield
    finally:
        LibraryGroup.add_dep, LibraryGroup.has_pruning_op = add, has


def cut(network: nn.Module, groups: tuple[Group, ...], kept: Kept, image_shape: tuple[int, ...]) -> KeepChannels:
    """Remove from `network`, in place, every channel that `kept` does not name, and return what was done.

    Torch-Pruning cuts a copy that shows which positions of every tensor are left; the network is then cut by that edit, as one that is loaded
    again is.

    Args:
        network: The dense network that `groups` were found in; where an error is raised, it is left as it was.
        groups: Groups from `find_groups`.
        kept: Channels to keep by group name, ascending; a group without an entry stays whole.
        image_shape: (channels, height, width).

    Raises:
        ValueError: A group does not exist, would be emptied, or a channel does not exist.
        Uncuttable: Torch-Pruning fails, layers share a weight, or the widths that were cut are not those that were asked for.
    """
    by_name = {group.name: group for group in groups}
    for name, channels in kept.items():
        if name not in by_name:
            raise ValueError(f"cannot cut group {name!r}: the network has {', '.join(by_name)}")
        if not channels or not set(channels) <= set(range(by_name[name].width)):
            raise ValueError(f"cannot cut group {name!r} to channels {channels}: keep at least one of 0..{by_name[name].width - 1}")
    twin = copy_network(network)
    with evaluating(twin):
        edit = _remove(twin, by_name, kept, image_shape)
    keep_channels(network, edit)
    return edit


def _remove(network: nn.Module, by_name: Mapping[str, Group], kept: Kept, image_shape: tuple[int, ...]) -> KeepChannels:
    graph = _dependency_graph(network, image_shape)
    numbered = Numbered(network)
    for name, channels in kept.items():
        removed = sorted(set(range(by_name[name].width)) - set(channels))
        if removed:
            root = _layer(network, name)
            prune = tp.prune_linear_out_channels if isinstance(root, nn.Linear) else tp.prune_conv_out_channels
            try:
                graph.get_pruning_group(root, prune, removed).prune()
            except FAILURES as error:
                blame_memory(error)
                raise Uncuttable(f"the network does not run without some channels of {name}: {say_what(error)}") from error
    edit = numbered.kept()
    for name, group in by_name.items():
        requested, achieved = len(kept.get(name, range(group.width))), num_outputs(_layer(network, name))
        if requested != achieved:
            raise Uncuttable(f"group {name!r} was to keep {requested} channels and has {achieved}: the network couples channels within it")
    return edit


def check_cut(dense: nn.Module, pruned: nn.Module, groups: tuple[Group, ...], kept: Kept, image_shape: tuple[int, ...]) -> float:
    """Return how far removing channels differs from zeroing them, relative to how much outputs vary between images.

    Raises:
        Uncuttable: The difference exceeds `TOLERANCE`: the network's coupling was not understood.
    """
    images = random_images(TRIAL_IMAGES, image_shape)
    with zeroed(zeroing := copy_network(dense), groups, kept):
        expected = outputs(zeroing, images)
    return require_equal(expected, outputs(pruned, images))


def refused_groups(network: nn.Module, groups: tuple[Group, ...], image_shape: tuple[int, ...]) -> dict[str, str]:
    """Return the groups and layers that cannot be cut safely, each with the reason. Every group is cut in a trial.

    Behind a channel shuffle or in a grouped convolution, Torch-Pruning silently cuts the wrong channels; other reshapes make it
    fail. Many groups are tried at once. If that fails, every second one is tried, so that neighbours are in different trials; then
    the others; then all groups that passed, together.

    Raises:
        ConfigError: The outputs hardly depend on the image, so that no trial shows anything.
    """
    with evaluating(network):
        refused = _search(network, image_shape)[1]
    whole = []
    for group in groups:
        partial = [m.module for m in group.members if len(set(m.channels)) < group.width]
        if partial:  # choosing among all channels could empty it, and its width would not be the group's
            refused[group.name] = f"{partial[0]} sees only some of its channels: the network splits or concatenates them"
        else:
            whole.append(group)
    trial = _Trial(network, groups, image_shape)
    apart = (tuple(whole[0::2]), tuple(whole[1::2]))
    passed = [group for half in apart for group in trial.sift(half, refused)]
    trial.sift(tuple(group for group in whole if group in passed), refused)
    order = {name: position for position, (name, _) in enumerate(network.named_modules())}
    return dict(sorted(refused.items(), key=lambda item: order[item[0]]))


class _Trial:
    """Cuts copies of a network whose outputs vary.

    Args:
        network: Copied.
        groups: All groups that were found in it.
        image_shape: (channels, height, width).

    Raises:
        ConfigError: The outputs hardly depend on the image, whatever the weights.
    """

    def __init__(self, network: nn.Module, groups: tuple[Group, ...], image_shape: tuple[int, ...]) -> None:
        self._groups, self._image_shape = groups, image_shape
        self._images = random_images(TRIAL_IMAGES, image_shape)
        self._dense = copy_network(network)
        with running():
            wake(self._dense, self._images)
            settle(self._dense, self._images)
            found = outputs(self._dense, self._images)
        self._settle = settle if has_batchnorm(network) else wake
        if not varies(found):
            raise ConfigError(
                describe(
                    "the outputs of this network hardly depend on the image, whatever its weights",
                    given=f"outputs up to {float(found.abs().max()):.2g} that differ by {variation(found):.2g} between images",
                    allowed=f"a difference of at least {VARIES:.0%} of the largest logit",
                    fix="look for what makes all images alike in forward(), such as a constant or a saturated layer in front of the outputs",
                )
            )

    def sift(self, groups: tuple[Group, ...], refused: dict[str, str]) -> tuple[Group, ...]:
        """Return those of the groups that can be cut together, and add the reasons for the others to `refused`.

        A group that shows nothing together with others is tried alone.
        """
        passed, alone = tuple[Group, ...](), tuple[Group, ...]()
        waiting = [groups] if groups else []
        while waiting:
            some = waiting.pop()
            reason = self._refusal((*passed, *some))
            if not reason:
                passed += some
            elif reason == UNDECIDED and passed and len(some) == 1 and not self._refusal(some):
                alone += some
            elif len(some) == 1:
                refused[some[0].name] = reason
            else:
                half = len(some) // 2
                waiting += [some[half:], some[:half]]
        return passed + alone

    def _refusal(self, groups: tuple[Group, ...]) -> str:
        """Return why these groups cannot be cut together, or nothing.

        A run of channels is kept that no block of equal size starts or ends with: a regular choice fits a grouped convolution by luck.
        """
        kept = {group.name: tuple(range(1, group.width // 2 + 1)) or (0,) for group in groups}
        network = copy_network(self._dense)
        try:
            with zeroed(network, self._groups, kept):
                self._settle(network, self._images)
                expected = outputs(network, self._images)
            cut(network, self._groups, kept, self._image_shape)
            found = outputs(network, self._images)
            if not varies(expected):
                return UNDECIDED
            require_equal(expected, found)
        except Uncuttable as error:
            return str(error)
        except FAILURES as error:  # shapes that no longer fit, weights that cannot be replaced, and whatever else Torch-Pruning has broken
            blame_memory(error)
            return f"the network does not run without some of its channels: {say_what(error)}"
        return ""


def _layer(network: nn.Module, name: str) -> Layer:
    layer = network.get_submodule(name)
    assert isinstance(layer, Layer)
    return layer


def _dependency_graph(network: nn.Module, image_shape: tuple[int, ...]) -> tp.DependencyGraph:
    """Trace the network's couplings; Torch-Pruning does not see frozen parameters, so none is frozen meanwhile.

    Raises:
        ConfigError: Torch-Pruning, or the network's own code, fails.
    """
    images = torch.zeros(2, *image_shape)
    try:
        with evaluating(network), unfrozen(network), outputs_as_they_are(), torch.enable_grad():  # it traces through autograd
            graph = tp.DependencyGraph().build_dependency(network, (images,), forward_fn=lambda traced, inputs: traced(inputs[0].clone()), verbose=False)
        if computed_tensors(network):  # what its forward has kept for later would not be copied
            outputs(network, images)
    except FAILURES as error:
        blame_memory(error)
        raise ConfigError(
            describe(
                "the couplings of the network's channels cannot be found",
                given=say_what(error) + ("" if place_of(error) else ", in Torch-Pruning"),
                allowed="a forward that autograd can follow from the parameters to the outputs, over layers of torch",
                fix="mend the line named above, move torch.no_grad() and weights that are mixed from others out of forward(), or choose another model",
            )
        ) from error
    return graph


def _first_producer(network: nn.Module, members: tuple[Member, ...], width: int) -> str | None:
    """Return the first layer, in the network's order, whose outputs are the group's channels, all of them and in their order; None without one."""
    channels = tuple(range(width))
    whole = {m.module for m in members if m.side == "out" and m.indices == m.channels == channels}
    found = (str(name) for name, module in network.named_modules() if name in whole and isinstance(module, Layer) and num_outputs(module) == width)
    return next(found, None)
