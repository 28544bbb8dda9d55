"""Stage `quantize`: calibrate (PTQ), fine-tune with simulated quantisation (QAT) where needed, leave layers in float where that is not enough."""

from math import ceil
from pathlib import Path

import torch
from torch import nn

from bonsai.stages.data.dataset import Dataset
from bonsai.stages.graph.onnx_graph import Dialect
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import WEIGHTS, load_network, save_tensors, weights_of
from bonsai.stages.networks.edits.records import Quantizers
from bonsai.stages.networks.loading import load_weights
from bonsai.stages.quantization.calibrate import calibrate, freeze_batchnorm
from bonsai.stages.quantization.config import QuantizeConfig, within
from bonsai.stages.quantization.insert import insert_quantizers
from bonsai.stages.quantization.keeping import float_nodes, layers_to_keep
from bonsai.stages.quantization.mixed import Mixer, Start, search_layers
from bonsai.stages.quantization.proof import require_same
from bonsai.stages.quantization.records import Quantization
from bonsai.stages.quantization.summary import summarise
from bonsai.stages.store.store import RESUME, stage
from bonsai.stages.tasks.registry import metric_named
from bonsai.stages.training.config import TrainConfig
from bonsai.stages.training.distillation import Teacher
from bonsai.stages.training.phase import Phase
from bonsai.stages.training.progress import say
from bonsai.stages.training.rates import half_cosine
from bonsai.stages.training.state import TrainState, reproducible

VALIDATION = "validation_"
"""Prefix of a metric's name in a record."""
COMPARED = 8
"""Number of images on which the quantised network, with its quantisers switched off, is compared with the float network."""


def figures_of(quantised: Checkpoint) -> str:
    """Return which of the networks is kept and what it reached, in a few words."""
    assert quantised.quantization is not None
    kept = quantised.quantization.kept
    ((name, value),) = (
        (key.removeprefix(VALIDATION).removesuffix(f"_{kept}"), value)
        for key, value in quantised.metrics.items()
        if key.startswith(VALIDATION) and key.endswith(f"_{kept}")
    )
    metric = metric_named(name)
    return f"{kept}, validation {metric.label} {metric.written(value)}"


@stage(version=8, tools=("torch", "torchvision"), figures=figures_of)
def quantize(
    out_dir: Path, pruned: Checkpoint, dataset: Dataset, training: TrainConfig, config: QuantizeConfig, dialect: Dialect, weight_bits: int
) -> Checkpoint:
    """Quantise a trained network so that its metric on the validation split drops by at most the recipe's `max_drop`.

    First the network is calibrated on training images. Then it is fine-tuned, if needed or asked for. If the recipe allows it, the last step is a
    search for layers to keep in float. The better one of the calibrated and the fine-tuned network is kept.

    Args:
        out_dir: Receives the weights and scales, of the network that is kept and of those that were not.
        pruned: The float network at the end of its cycle.
        dataset: Data to train on; the test split is not read.
        training: Batch size, optimizer, weight decay, augmentation and seed; trains in FP32 and without an average, which
            would see scales and weights that do not belong together.
        config: When to fine-tune, and length and learning rate of QAT.
        dialect: The runtime's grid that is simulated.
        weight_bits: 8, or 7 for devices whose 8-bit products saturate.
    """
    training = training.model_copy(update={"precision": "fp32", "ema": None})
    phase = Phase("qat", dataset, training, out_dir / RESUME)
    trained = pruned
    with reproducible(training):
        reference, twin = load_network(pruned).to(training.device), load_network(pruned)
        kept_float = layers_to_keep(twin, config.keep_float, pruned.image_shape, dropped=pruned.dropped)
        quantizers = Quantizers(dialect=dialect, weight_bits=weight_bits, kept_float=kept_float)
        network = insert_quantizers(twin, pruned.image_shape, quantizers).to(training.device)
        calibration = [phase.batches.batch(pruned.step + i)[0] for i in range(config.calibration_batches)]
        require_same(reference, network, calibration[0][:COMPARED])
        calibrate(network, calibration)
        metric = phase.task.metric
        reached = {"float": phase.validate(reference), "ptq": phase.validate(network)}
        starts = [Start("ptq", _copy_state(network))]
        say(f"PTQ validation {metric.label} {reached['ptq']:.4f} (float {reached['float']:.4f})")

        def enough(value: float) -> bool:
            return within(metric.drop(reached["float"], value), config.max_drop)

        if config.qat == "always" or (config.qat == "when_needed" and not enough(reached["ptq"])):
            trained = _fine_tune(network, reference, phase, pruned, training, config)
            reached["qat"] = phase.validate(network)
            starts.insert(0 if metric.merit(reached["qat"]) >= metric.merit(reached["ptq"]) else 1, Start("qat", _copy_state(network)))
        best = starts[0]
        load_weights(network, best.state)
        quantization = Quantization(kept=best.weights, weights=best.weights, max_drop=config.max_drop)
        if config.mixed and not enough(reached[best.weights]):
            mixer = Mixer(twin, network, pruned.image_shape, quantizers, calibration)
            images = torch.cat([phase.batches.batch(pruned.step + i)[0] for i in range(ceil(config.mixed.images / training.batch_size))])
            found = search_layers(mixer, starts, reference, images[: config.mixed.images], config.mixed, phase, enough)
            reached["mixed"] = found.reached
            quantization = quantization.model_copy(update=found.outcome)
            network, quantizers = mixer.network(found.start, found.layers), mixer.quantizers(found.layers)
    left = tuple(node.described for node in float_nodes(network) if node.name not in quantizers.kept_float)
    quantization = quantization.model_copy(update={"left_float": left})
    save_tensors(out_dir / WEIGHTS, network.state_dict())
    for start in starts:
        if start.weights != quantization.kept:
            save_tensors(out_dir / weights_of(start.weights), dict(start.state))
    metrics = {f"{VALIDATION}{metric.name}_{name}": value for name, value in reached.items()}
    result = trained.successor(out_dir, edits=(*trained.edits, quantizers), quantization=quantization, metrics=metrics)
    say(summarise(result, metric))
    return result


def _copy_state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def _fine_tune(network: nn.Module, reference: nn.Module, phase: Phase, pruned: Checkpoint, training: TrainConfig, config: QuantizeConfig) -> Checkpoint:
    """Train a calibrated network in place and return the record of `pruned` with the learning curve continued."""
    per_epoch = phase.batches.per_epoch
    start, stop = pruned.step, pruned.step + config.epochs * per_epoch

    def freeze_at_the_end(step: int) -> None:
        if step >= stop - config.frozen_epochs * per_epoch:
            freeze_batchnorm(network)

    history = phase.train(
        TrainState(network, training),
        pruned.history,
        start=start,
        stop=stop,
        rate=lambda step: half_cosine(config.lr, step - start, stop - start),
        before_epoch=freeze_at_the_end,
        teacher=Teacher(reference, config.distill) if config.distill else None,
    )
    return pruned.model_copy(update={"step": stop, "history": history})
