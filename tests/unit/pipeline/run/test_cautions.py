"""What a run says of gates that cannot be proven, and of networks that learnt next to nothing."""

import re
from pathlib import Path

import numpy as np
import pytest

from bonsai.pipeline.run.cautions import require_gates, warn_of_chance, warn_of_few
from bonsai.profiles.errors import ConfigError
from bonsai.profiles.loader import load_profile
from bonsai.stages.data.config import DataConfig
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.networks.checkpoint import Checkpoint, History
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.steps.prepare import prepare
from bonsai.stages.store.store import Store
from bonsai.stages.tasks.intervals import unseen_share


def of_test(dataset: Dataset, images: int) -> Dataset:
    return dataset.model_copy(update={"sizes": {"test": images}})


def test_few_test_images_are_told_against_the_gate_that_is_asked(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("bonsai.pipeline.run.cautions.say", told.append)
    profile = load_profile("local-cpu")
    warn_of_few(of_test(digits, 188), [profile])
    warn_of_few(of_test(digits, 189), [profile])
    warn_of_few(of_test(digits, 188), [load_profile("local-cpu", {"gates.max_accuracy_drop": 0})])
    warn_of_few(of_test(digits, 188), [load_profile("local-cpu", {"gates": {"max_drop": 1, "min_metric": 0.99}})])
    warn_of_few(of_test(digits, 381), [load_profile("local-cpu", {"gates": {"max_drop": 1, "min_metric": 0.99}})])
    assert told == [
        "warning: local-cpu: 188 test images cannot prove an accuracy drop below 0.020; the gate is 0.02: at least 189 are needed",
        "warning: local-cpu: 188 test images cannot prove an accuracy drop below 0.020; the gate is 0: no number is enough",
        "warning: local-cpu: 188 test images cannot prove a top-1 above 0.980; the gate is 0.99",
    ]


def test_the_warning_of_few_masks_says_what_it_assumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("bonsai.pipeline.run.cautions.say", told.append)
    options = {"targets": "masks", "height": 16, "width": 16, "train": 8, "validation": 8, "test": 40}
    scenes = Store(tmp_path).run(prepare, data=DataConfig(name="scenes", options=options), content="", task="segmentation")
    warn_of_few(scenes, [load_profile("local-cpu")])
    (warning,) = told
    found = re.search(r"40 test images cannot prove an accuracy drop below (0\.\d+), if the dense network's mIoU is near 1 \(at half of that, half", warning)
    assert found is not None
    assert float(found[1]) > 1.1 * unseen_share(40)  # not every kind is in every image


def test_a_limit_in_per_cent_is_refused_where_the_metric_is_a_ratio(digits: Dataset) -> None:
    profile = load_profile("local-cpu", {"gates.max_drop": 2})
    with pytest.raises(ConfigError, match=r"a limit on top-1 is above 1") as error:
        require_gates(digits, [profile])
    assert "gates.max_drop 2" in str(error.value)
    require_gates(digits.model_copy(update={"task": "regression"}), [profile])


@pytest.mark.parametrize(("top1", "told"), [(0.6, 1), (0.65, 0)])
def test_a_network_that_learnt_next_to_nothing_is_told(top1: float, told: int, digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    class FourSamples:
        def some_targets(self) -> np.ndarray:
            return np.array([0, 0, 1, 1])

    monkeypatch.setattr("bonsai.pipeline.run.cautions.Part", lambda _dataset, _part: FourSamples())
    lines: list[str] = []
    monkeypatch.setattr("bonsai.pipeline.run.cautions.say", lines.append)
    last = History(step=1, epoch=1, phase="trunk", loss=1, validation_top1=top1)
    warn_of_chance(Checkpoint(folder=digits.folder, model=ModelConfig(name="resnet8"), num_classes=2, image_shape=(1, 8, 8), history=(last,)), digits)
    assert len(lines) == told
