"""Trial cuts: every group is cut from a copy whose outputs vary, before anything is trained."""

from torch import nn

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.imports.user_code import FAILURES, say_what
from bonsai.stages.memory import blame_memory
from bonsai.stages.networks.calling import copy_network, running
from bonsai.stages.networks.edits.channels import keep_channels
from bonsai.stages.networks.inspection import random_inputs
from bonsai.stages.pruning.coupling.editing import edit_of
from bonsai.stages.pruning.coupling.finding import fixed_layers
from bonsai.stages.pruning.coupling.masking import masked
from bonsai.stages.pruning.equality import VARIES, Uncuttable, outputs, require_equal, variation, varies
from bonsai.stages.pruning.groups import Group
from bonsai.stages.pruning.settling import has_batchnorm, settle, wake
from bonsai.stages.pruning.surgery import TRIAL_IMAGES

UNDECIDED = "without some of its channels the outputs hardly depend on the image, so that a cut cannot be checked"


def refused_groups(network: nn.Module, groups: tuple[Group, ...], image_shape: tuple[int, ...]) -> dict[str, str]:
    """Return the groups and layers that cannot be cut safely, each with the reason. Every group is cut in a trial.

    Many groups are tried at once. If that fails, every second one is tried, so that neighbours are in different trials; then the others; then all
    groups that passed, together.

    Raises:
        ConfigError: The outputs hardly depend on the image, so that no trial shows anything.
    """
    refused = fixed_layers(network, image_shape)
    trial = _Trial(network, groups, image_shape)
    apart = (tuple(groups[0::2]), tuple(groups[1::2]))
    passed = [group for half in apart for group in trial.sift(half, refused)]
    trial.sift(tuple(group for group in groups if group in passed), refused)
    order = {name: position for position, (name, _) in enumerate(network.named_modules())}
    return dict(sorted(refused.items(), key=lambda item: order[item[0].partition("[")[0]]))


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
        self._groups = groups
        self._images = random_inputs(TRIAL_IMAGES, network, image_shape)
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
        network, cut = copy_network(self._dense), copy_network(self._dense)
        try:
            edit = edit_of(network, self._groups, kept)
            with masked(network, edit):
                self._settle(network, self._images)
                expected = outputs(network, self._images)
                cut.load_state_dict(network.state_dict())
            keep_channels(cut, edit)
            found = outputs(cut, self._images)
            if not varies(expected):
                return UNDECIDED
            require_equal(expected, found)
        except Uncuttable as error:
            return str(error)
        except FAILURES as error:  # shapes that no longer fit, weights that cannot be replaced, and whatever else a cut has broken
            blame_memory(error)
            return f"the network does not run without some of its channels: {say_what(error)}"
        return ""
