"""What `bonsai show` tells of a network in training."""

from pathlib import Path

from bonsai.stages.networks.checkpoint import Checkpoint, History
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.quantization.records import Quantization
from bonsai.stages.steps import prune, quantize


def trained(**facts: object) -> Checkpoint:
    return Checkpoint(folder=Path(), model=ModelConfig(name="resnet8"), num_classes=10, image_shape=(1, 16, 16), **facts)


def test_a_trained_network_tells_its_epoch_and_what_it_reached() -> None:
    line = History(step=3, epoch=2.5, phase="trunk", loss=1.0, metric="top1", validation=0.75)
    assert trained(history=(line,), step=3).reached() == "epoch 2.5, validation top-1 75.00%"
    assert trained(step=3).reached() == "step 3"


def test_a_cut_network_tells_what_is_left() -> None:
    assert prune.figures_of(trained(kept={"a": (0, 2), "b": (1,)})) == "3 channels kept in 2 groups"


def test_a_quantised_network_tells_which_it_is_and_what_it_reached() -> None:
    metrics = {"validation_top1_float": 0.95, "validation_top1_ptq": 0.9, "validation_top1_qat": 0.94, "cut_difference": 0.0}
    quantised = trained(metrics=metrics, quantization=Quantization(kept="qat", weights="qat", max_drop=0.01))
    assert quantize.figures_of(quantised) == "qat, validation top-1 94.00%"
