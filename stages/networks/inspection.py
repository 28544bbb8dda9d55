"""Checks that a network's outputs depend only on its `state_dict`: it is built twice, one state is loaded into the other, the outputs are compared.

A checkpoint stores only the state. After every kill, cut and export the same factory builds the network again. If the factory keeps random values or
other data outside the state, the new network would silently compute something else.
"""

import math

import torch
from safetensors.torch import load, save
from torch import nn
from torch.nn import functional

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.imports.user_code import user_code
from bonsai.stages.networks.attributes import differing
from bonsai.stages.networks.calling import computed_tensors, copy_network, evaluating, outputs_of, running, training
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.loading import load_weights
from bonsai.stages.networks.packed_inputs import joined_inputs, packed_form
from bonsai.stages.networks.registry import build_network
from bonsai.stages.networks.seeding import seeded
from bonsai.stages.tasks.task import DataSpec, Learning

IMAGES = 2
TOLERANCE = 1e-3
"""Largest difference between two networks of one state, relative to how much outputs vary between images (fp32)."""
NOISE = 1e-5
"""The same relative to the largest output: rounding alone may cause this much."""


def require_whole_state(config: ModelConfig, network: nn.Module, spec: DataSpec, learning: Learning) -> None:
    """Refuse a network that is more than its state, gives an image other outputs at every look, or fails while it is trained for a step.

    Args:
        config: How `network` was built; it is built once more, with other random numbers.
        network: As the factory made it; it is left as it was.
        spec: Of the data.
        learning: The task's, which a step is tried with.

    Raises:
        ConfigError: State outside `state_dict`, which is named; random numbers in evaluation; an error in training; something that cannot be
            copied or stored.
    """
    require_plain_state(network)
    one, other = copy_network(network), build_network(config, spec.image_shape, spec.num_classes, seed=config.seed + 1)
    _load(other, _stored(one))
    named = list(differing(one, other))
    images = random_images(IMAGES, spec.image_shape)
    _require_steady(one, images)
    _require_independent(one, images)
    _train_a_step(one, images, spec, learning)
    copy_network(one)  # what a training leaves behind must not hinder that
    _load(other, _stored(one))
    named += [name for name in differing(one, other) if name not in named]
    for mode in (evaluating, training):
        with mode(one), mode(other):
            found = [_seeded_outputs(each, images, seed=0) for each in (one, other)]
        if not _alike(*found, exactly=bool(named)):
            raise ConfigError(
                describe(
                    "the network is more than its state_dict: built again and given the same state, it computes something else",
                    given=", ".join(named) or f"no attribute that differs; {_difference(*found)}",
                    allowed="parameters and buffers that state_dict() holds, and what the arguments of the factory alone decide",
                    fix="keep it by register_buffer(), or derive it from the arguments of the factory instead of random numbers, files or counters",
                )
            )


def require_plain_state(network: nn.Module) -> None:
    """Refuse tensors that are computed from parameters and kept as attributes: they are in no state, and a forward without gradients hides them.

    Raises:
        ConfigError: The network, as its factory made it, has some; they are named.
    """
    computed = computed_tensors(network)
    if computed:
        raise ConfigError(
            describe(
                "the network keeps tensors that are computed from its parameters",
                given=", ".join(computed),
                allowed="parameters and buffers; what is computed from them is computed in forward()",
                fix="compute it in forward(); for the old torch.nn.utils.weight_norm: bake it in with remove_weight_norm",
            )
        )


def random_inputs(number: int, network: nn.Module, image_shape: tuple[int, ...]) -> torch.Tensor:
    """Return such images as `random_images` for a network; for one that takes several inputs joined, (n, total), others for each."""
    form = packed_form(network)
    shapes = (image_shape,) if form is None else form.shapes
    return joined_inputs([random_images(number, shape, seed=place) for place, shape in enumerate(shapes)])


def random_images(number: int, image_shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Return images that differ as pictures do, in brightness, contrast and coarse patterns as well as in every pixel: (n, c, h, w) or (n, c, t) around 0.

    Numbers (n, k) differ one by one.
    """
    generator = torch.Generator().manual_seed(seed)
    channels, *sides = image_shape
    coarse = torch.randn(number, channels, *(min(4, side) for side in sides), generator=generator)
    pattern = functional.interpolate(coarse, size=sides, mode="bilinear" if len(sides) == 2 else "linear", align_corners=False) if sides else coarse
    contrast = torch.linspace(0.2, 1, number)[torch.randperm(number, generator=generator)]
    brightness = torch.linspace(-0.7, 0.7, number)[torch.randperm(number, generator=generator)]
    fine = torch.randn(number, *image_shape, generator=generator)
    each = (-1, *(1 for _ in image_shape))
    return (0.6 * pattern + 0.4 * fine) * contrast.reshape(each) + brightness.reshape(each)


def _stored(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return a network's state as a checkpoint gives it back."""
    with user_code(
        "the network's state cannot be stored",
        allowed="a state_dict() of tensors, each with memory of its own",
        fix="let no extra state, and no two buffers over the same memory, be in state_dict()",
    ):
        return load(save({name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}))


def _load(network: nn.Module, state: dict[str, torch.Tensor]) -> None:
    with user_code(
        "the network's state does not fit into a network that the same factory builds",
        allowed="a factory whose layers depend on its arguments alone",
        fix="draw no sizes at random, and count nothing from one network to the next",
    ):
        load_weights(network, state)


@torch.no_grad()
def _require_steady(network: nn.Module, images: torch.Tensor) -> None:
    """Refuse a network that gives the same images other outputs when it is asked again."""
    with evaluating(network):
        first, again = (_seeded_outputs(network, images, seed=seed) for seed in (1, 2))
    if not _alike(first, again, exactly=False):
        raise ConfigError(
            describe(
                "the network gives the same images other outputs at every look, in evaluation",
                given=_difference(first, again),
                allowed="outputs that depend on images and state alone",
                fix="let what is random, counts or remembers act in training only (`if self.training`, dropout(x, p, self.training))",
            )
        )


@torch.no_grad()
def _require_independent(network: nn.Module, images: torch.Tensor) -> None:
    """Refuse a network that gives an image other outputs alone than beside others: an engine is measured on one, and trained and checked on many."""
    with evaluating(network):
        together = _seeded_outputs(network, images, seed=1)
        alone = torch.cat([_seeded_outputs(network, image[None], seed=1) for image in images])
    if not _alike(together, alone, exactly=False):
        raise ConfigError(
            describe(
                "the network gives an image other outputs alone than in a batch, in evaluation",
                given=_difference(together, alone),
                allowed="outputs of an image that do not depend on the other images",
                fix="normalise by running statistics in evaluation (`track_running_stats=True`), and mix no images of a batch",
            )
        )


def _train_a_step(network: nn.Module, images: torch.Tensor, spec: DataSpec, learning: Learning) -> None:
    """Run forward and backward in training, twice: state that changes outside of `state_dict` shows by then."""
    targets = learning.example_targets(len(images), spec)
    with training(network), seeded(3), torch.enable_grad():
        for _ in range(2):
            found = outputs_of(network, images)
            learning.require_outputs(found, spec, samples=len(images), mode="training")
            with running():
                learning.loss(found, targets).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    network.zero_grad(set_to_none=True)


@torch.no_grad()
def _seeded_outputs(network: nn.Module, images: torch.Tensor, *, seed: int) -> torch.Tensor:
    with seeded(seed):
        return outputs_of(network, images)


def _alike(one: torch.Tensor, other: torch.Tensor, *, exactly: bool) -> bool:
    """Whether two networks compute the same: to the bit, where something is known to differ, else but for rounding."""
    if exactly or one.shape != other.shape:
        return one.shape == other.shape and torch.equal(one.nan_to_num(), other.nan_to_num())
    spread = float((one - one.mean(0)).abs().max()) * TOLERANCE + float(one.abs().max()) * NOISE
    return torch.allclose(one, other, rtol=0, atol=spread if math.isfinite(spread) else 0.0, equal_nan=True)


def _difference(one: torch.Tensor, other: torch.Tensor) -> str:
    if one.shape != other.shape:
        return f"outputs {tuple(one.shape)} and {tuple(other.shape)}"
    return f"outputs that differ by {float((one - other).abs().max()):.2g}, of {float(one.abs().max()):.2g}"
