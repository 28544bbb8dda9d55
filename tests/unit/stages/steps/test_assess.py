"""What is chosen by which part of the data: engines that are right on one and wrong on the other."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scripted_device import ScriptedDevice, use

from bonsai.profiles.loader import load_profile
from bonsai.profiles.schema import HardwareProfile, Precision
from bonsai.stages.backends.engine import DeviceInfo, Engine
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.measurement.measurements import Measurement
from bonsai.stages.measurement.results import RESULTS, read_results
from bonsai.stages.steps.assess import assess
from bonsai.stages.steps.measure import measure
from bonsai.stages.tasks.classification.judging import CLASSIFICATION

CLASSES, IMAGES = 4, 400
VALIDATION, TEST = 0, 255
"""What the second pixel tells: of which part an image is."""
Say = Callable[[int, int], int]
"""Class and part of an image to the class that a fake engine takes it for."""


def right(label: int, part: int) -> int:
    return label


def wrong_on(bad: int) -> Say:
    return lambda label, part: (label + 1) % CLASSES if part == bad else label


def one_class(label: int, part: int) -> int:
    return 0


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    labels = torch.arange(IMAGES) % CLASSES
    for name, mark in (("validation", VALIDATION), ("test", TEST)):
        images = torch.zeros((IMAGES, 1, 2, 2), dtype=torch.uint8)
        images[:, 0, 0, 0], images[:, 0, 0, 1] = labels.to(torch.uint8), mark
        save_file({"images": images, "labels": labels}, tmp_path / f"{name}.safetensors")
    sizes = {"train": 1, "validation": IMAGES, "test": IMAGES}
    return Dataset(folder=tmp_path, name="marked", preprocess=Preprocess.of((1, 2, 2)), classes=tuple("abcd"), sizes=sizes, licence="")


def run_of(say: Say) -> Callable[[np.ndarray], np.ndarray]:
    def run(images: np.ndarray) -> np.ndarray:
        pixels = np.rint((images * 0.5 + 0.5) * 255).astype(int)
        return np.eye(CLASSES, dtype=np.float32)[[say(image[0, 0, 0], image[0, 0, 1]) for image in pixels]]

    return run


def result(
    engines: dict[str, Say],
    dataset: Dataset,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    profile: HardwareProfile | None = None,
    **reference: bool,
) -> tuple[Measurement, Measurement, list[str]]:
    """Return what was chosen and what was assessed, and the engines that saw the test part; the narrower engine is the faster one."""
    profile = profile or load_profile("local-cpu", {"gates.max_drop": 0.05})
    info = DeviceInfo(device="here", isa=(), cores=1, system="Linux x86_64", runtime="onnxruntime", runtime_version="1", present=True)
    seen: list[str] = []

    def engine(name: str, precision: Precision) -> Engine:
        (folder / name).mkdir(parents=True)
        (folder / name / "engine.onnx").write_bytes(b"")
        facts = {"file": "engine.onnx", "runtime": "onnxruntime", "precision": precision, "dialect": "float", "info": info, "image_shape": (1, 2, 2)}
        return Engine.model_validate({"folder": folder / name, **facts, "parameters": 0, "macs": 0, "coverage": {}, "runnable": True})

    def noting(name: str) -> Callable[[np.ndarray], np.ndarray]:
        run = run_of(engines[name])

        def noted(images: np.ndarray) -> np.ndarray:
            if images[0, 0, 0, 1] == 1:
                seen.append(name)
            return run(images)

        return noted

    use(ScriptedDevice({name: noting(name) for name in engines}, {"dense": 1.0, "fp32": 1.0, "int8": 0.2}), monkeypatch)
    dense, *candidates = (engine("dense", "fp32"), engine("fp32", "fp32"), engine("int8", "int8"))
    timing = TimingConfig(runs=20, warmup_runs=1, warmup_seconds=0, tries=1)
    chosen = measure(folder, dense, tuple(candidates), None, dataset, profile, timing, None, **reference)
    assert not seen  # nothing that is chosen by has seen the test part
    shipped = next(one for one in candidates if one.precision == chosen.shipped)
    return chosen, assess(folder, chosen, dense, shipped, dataset, profile, **reference), seen


def test_the_precision_is_chosen_on_the_validation_part(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, final, seen = result({"dense": right, "fp32": right, "int8": wrong_on(VALIDATION)}, dataset, tmp_path / "a", monkeypatch)
    assert (chosen.shipped, final.shipped) == ("fp32", "fp32")
    assert final.gates[1].passed
    assert (seen.count("dense"), seen.count("fp32"), seen.count("int8")) == (IMAGES, IMAGES, 0)


def test_what_fails_on_the_test_part_alone_is_shipped_and_missed(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, final, seen = result({"dense": right, "fp32": right, "int8": wrong_on(TEST)}, dataset, tmp_path / "a", monkeypatch)
    assert chosen.shipped == "int8"
    assert chosen.gates[1].note == "+0.0000 on the validation images; expected of 400 test images"
    assert (final.gates[1].verdict, final.gates[1].note) == ("missed", "+1.0000 on the test images")
    assert "fp32" not in seen
    assert final.warnings == ()


def test_each_row_tells_which_part_it_is_of(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, final, _ = result({"dense": right, "fp32": right, "int8": wrong_on(TEST)}, dataset, tmp_path / "a", monkeypatch)
    assert {row.accuracy.part for row in chosen.rows} == {"validation"}
    assert {row.label: (row.accuracy.part, row.accuracy.value) for row in final.rows} == {
        "dense fp32": ("test", 1.0),
        "pruned fp32": ("validation", 1.0),
        "pruned int8 (shipped)": ("test", 0.0),
    }
    validation = final.shipped_row.validation
    assert validation is not None
    assert (validation.part, validation.value) == ("validation", 1.0)


def test_the_test_part_is_kept_image_by_image(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, final, _ = result({"dense": right, "fp32": right, "int8": wrong_on(TEST)}, dataset, tmp_path / "a", monkeypatch)
    found = read_results(final.folder / RESULTS, CLASSIFICATION)
    assert found.dense["label"].tolist() == [i % CLASSES for i in range(IMAGES)]
    assert (found.dense["answer"] == found.dense["label"]).all()
    assert found.shipped["answer"].tolist() == [(i + 1) % CLASSES for i in range(IMAGES)]
    assert len(final.test_digest) == 64


def test_a_reference_at_chance_leaves_no_plain_verdict(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, final, _ = result({"dense": one_class, "fp32": right, "int8": right}, dataset, tmp_path / "a", monkeypatch)
    assert final.gates[1].verdict == "undecided"
    assert final.warnings == ("the dense network's test top-1 is 25.00%, and always naming the largest class gives 25.00%: train longer, or check the data",)
    asks_nothing = load_profile("local-cpu", {"gates.max_drop": 1})
    _, final, _ = result({"dense": one_class, "fp32": right, "int8": right}, dataset, tmp_path / "b", monkeypatch, asks_nothing)
    assert final.gates[1].passed
    assert len(final.warnings) == 1


def test_an_engine_that_is_bad_itself_misses_its_own_gate(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = load_profile("local-cpu", {"gates": {"max_drop": 0.05, "min_metric": 0.9}})
    half: Say = lambda label, part: label if label < 2 else 0  # noqa: E731  # as short as it can be
    _, final, _ = result({"dense": half, "fp32": half, "int8": half}, dataset, tmp_path / "a", monkeypatch, profile)
    assert {gate.name: gate.verdict for gate in final.gates[1:3]} == {"accuracy drop": "met", "accuracy": "missed"}
    assert [gate.name for gate in final.gates].count("accuracy") == 1


def test_an_untrained_dense_network_is_timed_and_sees_no_image(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = load_profile("local-cpu", {"gates": {"max_drop": None, "min_metric": 0.9}})
    engines = {"dense": one_class, "fp32": right, "int8": right}
    _, final, seen = result(engines, dataset, tmp_path / "a", monkeypatch, profile, with_reference=False)
    dense, *_ = final.rows
    assert (dense.label, dense.accuracy, dense.validation) == ("dense fp32 (untrained)", None, None)
    assert dense.latency is not None
    assert "dense" not in seen
    assert [gate.name for gate in final.gates] == ["latency", "accuracy"]
    assert final.gates[0].unit == "of dense FP32 p50"
    assert final.warnings == ()
    assert read_results(final.folder / RESULTS, CLASSIFICATION).dense is None
    assert final.figures().startswith("int8 shipped, test top-1 100.00%, no reference, p50 ")
    assert "no reference" not in result(engines, dataset, tmp_path / "b", monkeypatch)[1].figures()
