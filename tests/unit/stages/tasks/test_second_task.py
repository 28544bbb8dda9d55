"""The seam holds a task that is no classification: a regression."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bonsai.profiles.schema import Gates
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.delivery.golden import read_golden, write_golden
from bonsai.stages.errors import BuildError
from bonsai.stages.graph.config import ExportConfig
from bonsai.stages.graph.parity import compare, require_parity
from bonsai.stages.measurement.judging import accuracy_of, observe
from bonsai.stages.measurement.measurements import Accuracy
from bonsai.stages.measurement.results import RESULTS, Results, read_results, save_results
from bonsai.stages.measurement.verdicts import Shown, accuracy_gates, doubt_about
from bonsai.stages.networks.registry import require_outputs
from bonsai.stages.quantization.sensitivity import scan_layers
from bonsai.stages.tasks.regression.judging import ANSWER, REGRESSION, TARGET
from bonsai.stages.tasks.regression.learning import RegressionLearning
from bonsai.stages.tasks.task import DataSpec, Statistics
from bonsai.stages.training.config import DistillConfig, TrainConfig
from bonsai.stages.training.distillation import Teacher
from bonsai.stages.training.phase import Phase
from bonsai.stages.training.state import TrainState

SHAPE, IMAGES = (1, 4, 4), 96


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Images whose target is their brightness in the upper half less that in the lower one."""
    generator = torch.Generator().manual_seed(0)
    for part in ("train", "validation", "test"):
        images = torch.randint(0, 256, (IMAGES, *SHAPE), generator=generator, dtype=torch.uint8)
        values = images.float().mean((1, 3)) / 255
        save_file({"images": images, "labels": values[:, :2].mean(1, keepdim=True) - values[:, 2:].mean(1, keepdim=True)}, tmp_path / f"{part}.safetensors")
    sizes = dict.fromkeys(("train", "validation", "test"), IMAGES)
    return Dataset(folder=tmp_path, name="brightness", preprocess=Preprocess.of(SHAPE), classes=("value",), sizes=sizes, licence="", task="regression")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 1))


def errors(*values: float) -> Statistics:
    return {TARGET: np.zeros((len(values), 1), np.float32), ANSWER: np.array(values, np.float32)[:, None]}


def test_it_is_trained_evaluated_and_noted_under_its_own_name(dataset: Dataset, tmp_path: Path) -> None:
    config = TrainConfig(epochs=6, batch_size=16, lr=0.05, warmup_epochs=0, threads=1)
    phase, state = Phase("trunk", dataset, config, tmp_path / "resume"), TrainState(network(), config)
    before = phase.validate(state.deployed)
    history = phase.train(state, (), start=0, stop=36)
    assert history[-1].validation == phase.validate(state.deployed) < 0.5 * before
    assert history[-1].model_dump().keys() == {"step", "epoch", "phase", "loss", "validation_rmse"}
    assert type(history[-1]).model_validate(history[-1].model_dump()) == history[-1]


def test_a_student_imitates_a_teacher(dataset: Dataset) -> None:
    images, teacher = torch.randn(8, *SHAPE), network()
    learning = RegressionLearning(TrainConfig())
    hard = torch.tensor(2.0)
    found = Teacher(teacher, DistillConfig(weight=0.25)).loss(images, teacher(images) + 2, hard, learning)
    assert float(found.detach()) == pytest.approx(0.75 * 2 + 0.25 * 4)


def test_engines_are_judged_and_their_results_kept(dataset: Dataset, tmp_path: Path) -> None:
    targets = np.zeros((20, 1), np.float32)
    dense, shipped = (observe([np.full((1, 1), off, np.float32)] * len(targets), targets, REGRESSION) for off in (0.5, 0.75))
    accuracy = accuracy_of(shipped, REGRESSION, "engine", "test")
    assert (accuracy.metric, accuracy.value, accuracy.n) == ("rmse", 0.75, 20)
    assert accuracy.model_dump()["rmse"] == 0.75
    assert Accuracy.model_validate_json(accuracy.model_dump_json()) == accuracy
    save_results(tmp_path / RESULTS, Results(dense, shipped), REGRESSION)
    kept = read_results(tmp_path / RESULTS, REGRESSION)
    assert REGRESSION.reduce(kept.shipped) == 0.75


def test_a_lower_figure_is_the_better_one_for_gates_and_doubts() -> None:
    shown = Shown.on_test(REGRESSION, errors(*[0.5, -0.5] * 50), errors(*[0.7, -0.7] * 50), "")
    drop, own = accuracy_gates(shown, Gates(max_drop=0.1, min_metric=0.6))
    assert (drop.unit, drop.verdict) == ("RMSE (upper end of the 95 % interval)", "missed")
    assert drop.found > 0.2
    assert (own.unit, own.verdict) == ("RMSE (upper end of the 95 % interval)", "missed")
    assert own.found == pytest.approx(0.7, abs=0.01)
    assert [gate.verdict for gate in accuracy_gates(shown, Gates(max_drop=0.3, min_metric=0.8))] == ["met", "met"]
    targets = np.array([[-1.0], [1.0]])
    assert doubt_about(REGRESSION, 0.7, targets, "test") == ""
    assert doubt_about(REGRESSION, 0.8, targets, "test").startswith("the dense network's test RMSE is 0.8, and always naming the mean gives 1")


def test_outputs_are_compared_by_its_own_measure(dataset: Dataset, tmp_path: Path) -> None:
    model, images = network().eval(), torch.randn(32, *SHAPE)
    require_outputs(model, DataSpec(SHAPE, 1), RegressionLearning(TrainConfig()))

    @torch.no_grad()
    def run(batch: np.ndarray) -> np.ndarray:
        return model(torch.from_numpy(batch)).numpy()  # type: ignore[no-any-return]

    require_parity(compare(model, run, images, REGRESSION), ExportConfig())
    with pytest.raises(BuildError, match="the prediction differs on 32 of 32 images"):
        require_parity(compare(model, lambda x: run(x) + 1, images, REGRESSION), ExportConfig())
    write_golden(tmp_path, images[:3].numpy(), partial(map, run), "value")
    assert np.array_equal(read_golden(tmp_path)[1], np.concatenate([run(image[None]) for image in images[:3].numpy()]))


def test_the_noise_of_its_outputs_ranks_layers() -> None:
    def in_float(layers: tuple[str, ...]) -> nn.Module:
        return nn.Sequential(network(), *(nn.Identity() if layer in layers else Shifted() for layer in ("a", "b")[:1]))

    class Shifted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    found = scan_layers(("a", "b"), in_float, network(), torch.randn(16, *SHAPE), RegressionLearning(TrainConfig()))
    assert [one.layer for one in found] == ["a", "b"]
    assert found[1].noise == 0
