"""Stage `quantize`: calibrate (PTQ), then fine-tune with simulated quantisation (QAT)."""

from pathlib import Path

from stages.artifacts import Checkpoint, Dataset, Dialect, QuantizerState
from stages.checkpoints import WEIGHTS, load_network, save_tensors
from stages.quantization.calibrate import calibrate, freeze_batchnorm
from stages.quantization.config import QuantizeConfig
from stages.quantization.insert import insert_quantizers
from stages.store import RESUME, stage
from stages.training.config import TrainConfig
from stages.training.phase import Phase
from stages.training.progress import say
from stages.training.rates import half_cosine
from stages.training.state import TrainState, reproducible


@stage(version=2, tools=("torch", "torch-pruning"))
def quantize(
    out_dir: Path, pruned: Checkpoint, dataset: Dataset, training: TrainConfig, config: QuantizeConfig, dialect: Dialect, weight_bits: int
) -> Checkpoint:
    """Put quantisers on a trained network, calibrate them on training images, and fine-tune.

    Whichever of the calibrated and the fine-tuned network is better on the validation split is kept.

    Args:
        out_dir: Receives the weights and scales.
        pruned: The float network at the end of its cycle.
        dataset: What to train on; the test split is not read.
        training: Batch size, optimizer, weight decay, augmentation and seed; trains in FP32 and without an average, which
            would see scales and weights that do not belong together.
        config: Length and learning rate of QAT.
        dialect: The runtime's grid that is simulated.
        weight_bits: 8, or 7 for devices whose 8-bit products saturate.
    """
    quantizers = QuantizerState(dialect=dialect, weight_bits=weight_bits)
    training = training.model_copy(update={"precision": "fp32", "ema": None})
    phase = Phase("qat", dataset, training, out_dir / RESUME)
    per_epoch = phase.batches.per_epoch
    start, stop = pruned.step, pruned.step + config.epochs * per_epoch
    with reproducible(training):
        float_network = load_network(pruned)
        float_top1 = phase.validation_top1(float_network.to(training.device))
        network = insert_quantizers(float_network.cpu(), pruned.image_shape, quantizers).to(training.device)
        calibrate(network, (phase.batches.batch(start + i)[0] for i in range(config.calibration_batches)))
        ptq_top1 = phase.validation_top1(network)
        calibrated = {name: value.clone() for name, value in network.state_dict().items()}
        say(f"PTQ validation top-1 {ptq_top1:.4f} (float {float_top1:.4f})")

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
        )
        qat_top1 = phase.validation_top1(network)
        if qat_top1 < ptq_top1:
            network.load_state_dict(calibrated)
            say(f"QAT ended lower on validation ({qat_top1:.4f}) than the calibrated network: the calibrated one is kept")
    save_tensors(out_dir / WEIGHTS, network.state_dict())
    metrics = {"validation_top1_float": float_top1, "validation_top1_ptq": ptq_top1, "validation_top1_qat": qat_top1}
    return pruned.successor(out_dir, quantizers=quantizers, step=stop, history=history, metrics=metrics)
