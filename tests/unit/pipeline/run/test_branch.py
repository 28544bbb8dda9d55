from pathlib import Path
from typing import Literal

from bonsai.pipeline.run.branch import dense_curve
from bonsai.stages.networks.checkpoint import Checkpoint, History
from bonsai.stages.networks.config import ModelConfig


def test_the_dense_curve_ends_with_a_trained_reference_and_else_where_the_branch_left() -> None:
    def after(*phases: Literal["trunk", "branch"]) -> Checkpoint:
        lines = tuple(History(step=n, epoch=n, phase=phase, loss=1.0, metric="top1", validation=0.5) for n, phase in enumerate(phases, 1))
        return Checkpoint(folder=Path(), model=ModelConfig(name="resnet8"), num_classes=10, image_shape=(1, 8, 8), history=lines)

    final = after("trunk", "branch", "branch")
    assert len(dense_curve(after("trunk", "trunk", "trunk"), final)) == 3
    assert dense_curve(None, final) == final.history[:1]
    assert dense_curve(after(), final) == final.history[:1]  # given weights were not trained here
