"""Stage `initialise`: the dense network before any training, with random weights or with given ones."""

from pathlib import Path

from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.part import Part
from bonsai.stages.networks.checkpoint import Checkpoint, Start
from bonsai.stages.networks.checkpoints import WEIGHTS, build, load_network, save_tensors
from bonsai.stages.networks.config import GivenWeights, ModelConfig
from bonsai.stages.networks.loading import load_weights
from bonsai.stages.networks.matching import match_weights
from bonsai.stages.networks.weights_files import NamedTensors, read_weights
from bonsai.stages.store.store import stage
from bonsai.stages.tasks.registry import task_named
from bonsai.stages.training.evaluation import evaluate_part


@stage(version=2, tools=("torch", "torchvision"), figures=Checkpoint.reached)
def initialise(out_dir: Path, dataset: Dataset, model: ModelConfig, weights: GivenWeights | Checkpoint | None) -> Checkpoint:
    """Build the network and give it the weights that its training starts with.

    Args:
        out_dir: Receives the weights.
        dataset: Tells the shapes of inputs and outputs; given weights are tried on its validation part.
        model: The network.
        weights: Given weights: of a file, of the network's library, or of another network in the store. None for random ones.

    Raises:
        ConfigError: The weights cannot be had, or are not of this network.
    """
    classes = len(dataset.classes)
    network = build(model, dataset.image_shape, classes)
    start = Start()
    if weights is not None:
        found = NamedTensors(load_network(weights).state_dict()) if isinstance(weights, Checkpoint) else read_weights(weights, model)
        matched = match_weights(network, found.tensors, classes)
        load_weights(network, matched.tensors)
        task = task_named(dataset.task)
        metrics = {f"validation_{task.metric.name}": evaluate_part(network, Part(dataset, "validation"), task)}
        start = Start(given=True, entry=found.entry, prefix=matched.prefix, fresh=matched.fresh, metrics=metrics)
    save_tensors(out_dir / WEIGHTS, network.state_dict())
    return Checkpoint(folder=out_dir, model=model.architecture, image_shape=dataset.image_shape, num_classes=classes, start=start)
