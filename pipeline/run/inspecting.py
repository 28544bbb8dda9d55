"""What can be pruned in a network, and what it costs: its groups and its operators, found before anything is trained."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from torch import nn

from bonsai.pipeline.recipes.recipe import Recipe
from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.schema import HardwareProfile, Target
from bonsai.stages.backends.runtimes import graph_form, runtime_of
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.graph.config import ExportConfig
from bonsai.stages.graph.onnx_graph import Dialect
from bonsai.stages.graph.randomness import require_repeatable
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.inspection import require_plain_state, require_whole_state
from bonsai.stages.networks.registry import build_network, require_outputs, require_own_weights
from bonsai.stages.pruning.blocks import droppable, groups_with_blocks
from bonsai.stages.pruning.config import PruneConfig
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.fused_groups import deployed_form, require_fusable
from bonsai.stages.pruning.groups import Group, Widths, blocks_of
from bonsai.stages.pruning.limits import prunable
from bonsai.stages.pruning.regularisers import make_regulariser
from bonsai.stages.pruning.scores import require_scores
from bonsai.stages.pruning.trial import refused_groups
from bonsai.stages.quantization.config import QuantizeConfig
from bonsai.stages.quantization.keeping import layers_to_keep
from bonsai.stages.quantization.proof import prove_quantizable
from bonsai.stages.quantization.summary import listed
from bonsai.stages.selection.coverage import at_precision, left_in_float
from bonsai.stages.selection.operator_records import Operator, Unseen, with_groups
from bonsai.stages.selection.operators import read_operators
from bonsai.stages.tasks.registry import learning_of
from bonsai.stages.tasks.task import DataSpec
from bonsai.stages.training.config import TrainConfig
from bonsai.stages.training.progress import say


class Asked(Protocol):
    """What of a recipe the network, its widths and its timing depend on."""

    @property
    def model(self) -> ModelConfig:
        """The network."""
        ...

    @property
    def prune(self) -> PruneConfig:
        """When and how far it is pruned."""
        ...

    @property
    def quantize(self) -> QuantizeConfig:
        """What of it is quantised."""
        ...

    @property
    def export(self) -> ExportConfig:
        """Form of the ONNX file."""
        ...

    @property
    def timing(self) -> TimingConfig:
        """How long engines are timed."""
        ...


@dataclass(frozen=True)
class Network:
    """The dense network of a recipe: its groups and operators.

    Attributes:
        unseen: Matrix products that the latency table cannot describe.
        kept_float: Layers that the recipe leaves in float.
        fused: Whether it is trained in branches that are fused before it is timed and exported. The operators are the fused network's.
    """

    image_shape: tuple[int, ...]
    num_classes: int
    groups: tuple[Group, ...]
    operators: tuple[Operator, ...]
    unseen: tuple[Unseen, ...] = ()
    kept_float: tuple[str, ...] = ()
    fused: bool = False

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images that it takes."""
        _, height, width = self.image_shape
        return height, width

    @cached_property
    def dense_widths(self) -> Widths:
        """Channels per group of the dense network."""
        return {group.name: group.width for group in self.groups}

    def operators_at(self, target: Target) -> tuple[Operator, ...]:
        """Return the operators as an engine for the target runs them: beside INT8, some stay in float."""
        in_float = left_in_float(self.operators, self.kept_float)
        return at_precision(self.operators, target.precision, in_float, runtime_of(target).float_beside_int8)


def inspect_network(recipe: Recipe, image_shape: tuple[int, ...], num_classes: int, dialects: Iterable[Dialect] = ()) -> Network:
    """Build the recipe's network and find what can be pruned in it; prove that it stays the same network with quantisers.

    Args:
        recipe: Names the network, and what of it is pruned and quantised.
        image_shape: (channels, height, width).
        num_classes: Number of classes.
        dialects: Forms of the INT8 files that will be made of it, see `dialects_of`.

    Raises:
        ConfigError: The network does not exist, does not run, is more than its state, draws random numbers in evaluation, cannot be traced,
            fused or quantised, shares weights between layers, lacks what the criterion or the regulariser needs, a layer that the recipe names, or has
            nothing to prune.
    """
    network = build_network(recipe.model, image_shape, num_classes)
    require_plain_state(network)
    spec, learning = DataSpec(image_shape, num_classes), learning_of(recipe.task, TrainConfig())
    require_outputs(network, spec, learning)
    require_own_weights(network)
    require_repeatable(network, image_shape)
    require_whole_state(recipe.model, network, spec, learning)
    return inspect(network, recipe, image_shape, num_classes, dialects)


def inspect(network: nn.Module, asked: Asked, image_shape: tuple[int, ...], num_classes: int, dialects: Iterable[Dialect] = ()) -> Network:
    """Find what can be pruned in a network that was checked; prove that it stays the same network with quantisers.

    Args:
        network: The network, on the CPU.
        asked: What of it is pruned and quantised.
        image_shape: (channels, height, width).
        num_classes: Number of classes.
        dialects: Forms of the INT8 files that will be made of it.

    Raises:
        ConfigError: It cannot be traced, fused or quantised, lacks what the criterion or the regulariser needs, a layer that is named, or has nothing to
            prune.
    """
    found = groups_with_blocks(network, image_shape) if asked.prune.blocks else find_groups(network, image_shape)
    deployed = deployed_form(network, found, image_shape)
    kept_float = layers_to_keep(deployed.network, asked.quantize.keep_float, image_shape)  # refuses what the network has not
    dialects = tuple(dialects)
    if dialects:
        left = prove_quantizable(deployed.network, image_shape, asked.quantize.keep_float, dialects)
        if left:
            say(f"in float beside INT8: {listed(left)}")
    refused = refused_groups(network, found, image_shape)
    for name, reason in refused.items():
        say(f"group {name} is left whole: {reason}")
    free = {group.name for group in prunable(tuple(group for group in found if group.name not in refused), asked.prune.keep, network)}
    found = droppable(found, free, (*asked.prune.keep, *asked.prune.floors), network)
    groups = tuple(group for group in found if group.name in free)
    if not groups:
        raise ConfigError(
            describe(
                "no channels of this network can be pruned",
                given=f"{asked.model.name}, {len(found)} groups, {len(refused)} of them refused, prune.keep {', '.join(asked.prune.keep) or 'empty'}",
                allowed="at least one group of channels",
                fix="choose another model, or keep fewer layers whole",
            )
        )
    require_scores(network, groups, asked.prune.criterion)
    make_regulariser(asked.prune.regulariser, network, groups)  # refuses what the network has not
    if deployed.edit is not None:
        require_fusable(network, deployed.edit, groups, image_shape)
        say(f"trained in branches, and fused before it is timed, quantised and exported: {len(deployed.edit.modules)} modules")
    if asked.prune.blocks:
        say(f"residual blocks that may be left out: {', '.join(blocks_of(groups)) or 'none'}")
    blocks = {group.name: group.block for group in found}
    used = tuple(group.model_copy(update={"block": blocks[group.name]}) for group in deployed.groups)
    operators, unseen = read_operators(deployed.network, used, image_shape)
    fused = deployed.edit is not None
    return Network(image_shape, num_classes, groups, with_groups(operators, {group.name for group in groups}), unseen, kept_float, fused)


def dialects_of(profiles: Iterable[HardwareProfile]) -> tuple[Dialect, ...]:
    """Return the forms of the INT8 files that runs for these profiles may make."""
    forms = [graph_form(variant.target.at(p)) for profile in profiles for variant in profile.variants() for p in variant.target.candidates]
    return tuple(dict.fromkeys(form.dialect for form in forms if form.dialect != "float"))
