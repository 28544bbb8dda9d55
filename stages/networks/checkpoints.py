"""Networks on disk: the only place that rebuilds one.

A network is its architecture (`ModelConfig`), its edits in order, and its weights as safetensors.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bonsai.profiles.errors import describe
from bonsai.stages.errors import ArtifactDamaged, MomentsGone
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.edits.applying import apply
from bonsai.stages.networks.edits.records import Edit
from bonsai.stages.networks.loading import load_weights
from bonsai.stages.networks.registry import build_network, to_channels_last
from bonsai.stages.pruning.scores import Scores
from bonsai.stages.quantization.records import Quantised
from bonsai.stages.store.artifact import MOMENTS
from bonsai.stages.store.manifest import require_intact
from bonsai.stages.store.tensor_files import written_plainly
from bonsai.stages.training.config import TrainConfig
from bonsai.stages.training.state import MODULE, TrainState

WEIGHTS, TRAINING, AVERAGE = "weights.safetensors", "training.safetensors", "average.safetensors"
SCORES, STATISTICS, PENALTY = "scores.safetensors", "statistics.safetensors", "penalty.safetensors"


def build(model: ModelConfig, image_shape: tuple[int, ...], num_classes: int, edits: Sequence[Edit] = ()) -> nn.Module:
    """Build a network with its initial weights, edited, in channels-last layout."""
    network = build_network(model, image_shape, num_classes)
    for edit in edits:
        network = apply(network, edit, image_shape)
    to_channels_last(network)
    return network


def load_network(checkpoint: Checkpoint) -> nn.Module:
    """Return the network that is evaluated and shipped, in training mode: with averaged weights where the training averages."""
    network = _rebuild(checkpoint)
    training = load_tensors(checkpoint, AVERAGE) or load_tensors(checkpoint, TRAINING)
    averaged = {name.removeprefix(MODULE): value for name, value in training.items() if name.startswith(MODULE)}
    load_weights(network, averaged or load_file(checkpoint.folder / WEIGHTS))
    return network


def load_quantised(checkpoint: Checkpoint) -> dict[Quantised, nn.Module]:
    """Return every quantised network of a checkpoint of `quantize`, in training mode and in the order they were made; the one that was kept is among them."""
    quantization, quantizers = checkpoint.quantization, checkpoint.quantizers
    assert quantization is not None and quantizers is not None
    by_recipe = quantizers.model_copy(update={"kept_float": tuple(name for name in quantizers.kept_float if name not in quantization.searched)})
    networks: dict[Quantised, nn.Module] = {}
    for name in get_args(Quantised):
        if name == quantization.kept:
            networks[name] = load_network(checkpoint)
        elif (checkpoint.folder / weights_of(name)).exists():
            edits = tuple(by_recipe if edit == quantizers else edit for edit in checkpoint.edits)
            networks[name] = _rebuild(checkpoint.model_copy(update={"edits": edits}))
            load_weights(networks[name], load_file(checkpoint.folder / weights_of(name)))
    return networks


def weights_of(quantised: Quantised) -> str:
    """Return the name of the file with a quantised network; the one that was kept is in `WEIGHTS`."""
    return f"{quantised}.safetensors"


def load_training(checkpoint: Checkpoint, config: TrainConfig) -> TrainState:
    """Return the training as the checkpoint left it; one that has not begun has no moments yet.

    Raises:
        MomentsGone: The checkpoint is a segment of the trunk whose moments are not there any more.
    """
    network = _rebuild(checkpoint)
    load_weights(network, load_file(checkpoint.folder / WEIGHTS))
    if checkpoint.start is not None:
        return TrainState(network, config)
    if (checkpoint.folder / TRAINING).exists():
        return TrainState(network, config, load_tensors(checkpoint, TRAINING))
    return TrainState(network, config, load_moments(checkpoint, TRAINING) | load_tensors(checkpoint, AVERAGE))


def load_moments(checkpoint: Checkpoint, name: str) -> dict[str, torch.Tensor]:
    """Read one of the files that only a training that goes on needs of a segment of the trunk; empty if it has none.

    Raises:
        MomentsGone: They were freed, or are damaged.
    """
    folder = moments_of(checkpoint)
    try:
        require_intact(folder)
    except ArtifactDamaged as error:
        raise MomentsGone(
            describe(
                f"training cannot go on from {checkpoint.folder.parent.name}/{checkpoint.key}: its moments are gone",
                given=str(error).partition("\n")[0],
                allowed="a segment of the trunk with its moments, which `bonsai gc` frees",
                fix="repeat the `bonsai run`: it trains them again",
            )
        ) from error
    return load_file(folder / name) if (folder / name).exists() else {}


def has_moments(checkpoint: Checkpoint) -> bool:
    """Return whether a training can go on from a segment of the trunk."""
    try:
        require_intact(moments_of(checkpoint))
    except ArtifactDamaged:
        return False
    return True


def moments_of(checkpoint: Checkpoint) -> Path:
    """Return the folder of a segment's moments, whether they are there or not."""
    return checkpoint.folder.parent.parent / MOMENTS / checkpoint.key


def save_training(folder: Path, state: TrainState) -> None:
    """Write what `load_training` reads."""
    save_tensors(folder / WEIGHTS, state.network.state_dict())
    save_tensors(folder / TRAINING, state.tensors())


def save_segment(folder: Path, state: TrainState) -> None:
    """Write the weights, and their average, of a segment of the trunk; its moments are an artifact of their own (`save_moments`)."""
    save_tensors(folder / WEIGHTS, state.network.state_dict())
    average = {name: value for name, value in state.tensors().items() if name.startswith(MODULE)}
    if average:
        save_tensors(folder / AVERAGE, average)


def save_moments(folder: Path, state: TrainState, statistics: dict[str, torch.Tensor], penalty: dict[str, torch.Tensor] | None) -> None:
    """Write what else a training goes on from, as `load_moments` reads it.

    Args:
        folder: Receives the files.
        state: The training.
        statistics: Running averages of the scores.
        penalty: State of the regulariser; None where there is none.
    """
    save_tensors(folder / TRAINING, {name: value for name, value in state.tensors().items() if not name.startswith(MODULE)})
    save_tensors(folder / STATISTICS, statistics)
    if penalty is not None:
        save_tensors(folder / PENALTY, penalty)


def _rebuild(checkpoint: Checkpoint) -> nn.Module:
    return build(checkpoint.model, checkpoint.image_shape, checkpoint.num_classes, checkpoint.edits)


def save_tensors(file: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write named tensors as safetensors, in plain row-major layout."""
    with written_plainly(file):
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, file)


def load_tensors(checkpoint: Checkpoint, name: str) -> dict[str, torch.Tensor]:
    """Read one of the checkpoint's safetensors files; empty if it has none."""
    file = checkpoint.folder / name
    return load_file(file) if file.exists() else {}


def save_scores(folder: Path, scores: dict[str, Scores]) -> None:
    """Write the channel scores of every criterion."""
    save_tensors(folder / SCORES, {f"{criterion}/{group}": vector for criterion, by_group in scores.items() for group, vector in by_group.items()})


def load_scores(checkpoint: Checkpoint, criterion: str) -> Scores:
    """Read the channel scores of one criterion from a segment of the trunk."""
    prefix = f"{criterion}/"
    return {name.removeprefix(prefix): vector for name, vector in load_tensors(checkpoint, SCORES).items() if name.startswith(prefix)}
