"""A new engine beside an earlier package's: what is compared, what is timed, and what is refused before training."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_package import CLASSES, SHAPE, Edit, make_package, reseal

from bonsai.pipeline.run.releases import read_releases, require_releases
from bonsai.profiles.errors import ConfigError
from bonsai.profiles.loader import load_profile
from bonsai.profiles.schema import HardwareProfile
from bonsai.stages.backends.engine import Engine
from bonsai.stages.backends.registry import check_target
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.part import digest_of
from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.delivery.release import Release, read_release, require_comparable
from bonsai.stages.errors import DeviceUnavailable, VerificationError
from bonsai.stages.measurement.interval_record import Interval
from bonsai.stages.measurement.measurements import Accuracy, Against, Measurement
from bonsai.stages.measurement.results import RESULTS, Results, save_results
from bonsai.stages.steps.challenge import challenge, judge_against
from bonsai.stages.tasks.classification.judging import CLASSIFICATION
from bonsai.stages.training.batches import load_split

IMAGES = 300
PROFILE = load_profile("local-cpu", {"target.precision": "fp32"})
QUICK = TimingConfig(runs=40, block=5, warmup_runs=2, warmup_seconds=0, tries=1)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    torch.manual_seed(0)
    tensors = {"images": torch.randint(0, 256, (IMAGES, *SHAPE), dtype=torch.uint8), "labels": torch.arange(IMAGES) % len(CLASSES)}
    save_file(tensors, tmp_path / "test.safetensors")
    return Dataset(folder=tmp_path, name="noise", preprocess=Preprocess.of(SHAPE), classes=CLASSES, sizes={"test": IMAGES}, licence="")


def a_release(folder: Path, dataset: Dataset, *, wrong: int = 0, same_images: bool = True, edit: Edit = lambda _: None) -> Path:
    """Write a package whose engine took all test images but the first few for what they are, as its stored results tell."""
    folder.mkdir()
    make_package(folder, PROFILE)
    images, labels = part_of(dataset)
    save_results(folder / RESULTS, results(labels, wrong), CLASSIFICATION)
    digest = digest_of(images, labels) if same_images else "of other images"
    reseal(folder, lambda facts: (facts.update({"test_digest": digest}), edit(facts)))
    return folder


def part_of(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    images, labels = load_split(dataset, "test")
    return images.numpy(), labels.numpy()


def results(labels: np.ndarray, wrong: int) -> Results:
    taken_for = np.where(np.arange(len(labels)) < wrong, (labels + 1) % len(CLASSES), labels)
    return Results(*CLASSIFICATION.from_tensors({"labels": labels, "dense": labels, "engine": taken_for}))


def measured(folder: Path, dataset: Dataset, *, wrong: int = 0) -> Measurement:
    images, labels = part_of(dataset)
    folder.mkdir()
    save_results(folder / RESULTS, results(labels, wrong), CLASSIFICATION)
    facts = {"rows": (), "gates": (), "shipped": "fp32", "reason": "", "kernels": (), "dense_kernels": (), "contention": None}
    return Measurement.model_validate({"folder": folder, **facts, "test_digest": digest_of(images, labels)})


def the_engine(package: Path, *, runnable: bool = True) -> Engine:
    target = PROFILE.target
    facts = {"file": "engine.onnx", "runtime": target.runtime, "precision": "fp32", "dialect": "float", "image_shape": SHAPE}
    return Engine.model_validate({"folder": package, **facts, "info": check_target(target), "parameters": 0, "macs": 0, "coverage": {}, "runnable": runnable})


def test_stored_results_of_the_same_images_are_paired_and_both_engines_timed(dataset: Dataset, tmp_path: Path) -> None:
    release = read_release(a_release(tmp_path / "old", dataset, wrong=3))
    assert release.absence == ""
    require_comparable(release, task="classification", classes=CLASSES, image_shape=SHAPE, test_digest=digest_of(*part_of(dataset)))
    (tmp_path / "out").mkdir()
    facts = {"dataset": dataset, "profile": PROFILE, "timing": QUICK, "release": release}
    found = challenge(tmp_path / "out", measurement=measured(tmp_path / "new", dataset), engine=the_engine(tmp_path / "old"), **facts)
    assert found.against.accuracy.value == pytest.approx(1 - 3 / IMAGES)
    assert found.against.drop[0] == pytest.approx(-3 / IMAGES)
    assert "as its package tells" in found.against.accuracy.measured_by
    drop, slowdown = found.gates
    assert (drop.name, drop.verdict) == ("drop against tiny--local-cpu", "met")
    assert slowdown.name == "slowdown against tiny--local-cpu"
    assert found.against.new is not None
    assert found.against.not_timed == ""
    assert sorted(file.name for file in (tmp_path / "out").iterdir())[0] == "samples-1.safetensors"
    assert " processes, p50 of both timed in turns" in slowdown.note


def test_the_earlier_engine_is_run_where_its_results_are_of_other_images(dataset: Dataset, tmp_path: Path) -> None:
    release = read_release(a_release(tmp_path / "old", dataset, same_images=False))
    require_comparable(release, task="classification", classes=CLASSES, image_shape=SHAPE, test_digest=digest_of(*part_of(dataset)))
    (tmp_path / "out").mkdir()
    facts = {"dataset": dataset, "profile": PROFILE, "timing": QUICK, "release": release}
    found = challenge(tmp_path / "out", measurement=measured(tmp_path / "new", dataset), engine=the_engine(tmp_path / "old", runnable=False), **facts)
    assert "run here" in found.against.accuracy.measured_by
    assert found.against.accuracy.value < 0.6  # random weights, not what the stored results say
    assert len(found.gates) == 1
    assert found.against.sentence(CLASSIFICATION.metric).endswith("Not timed: the new engine does not run here: no host.")


@pytest.mark.parametrize(
    ("drop", "ratio", "verdicts"),
    [
        ((0.0, -0.01, 0.01), (1.0, 0.99, 1.01), ["met", "met"]),
        ((0.01, 0.0, 0.03), (1.05, 1.02, 1.08), ["undecided", "undecided"]),
        ((0.05, 0.03, 0.07), (1.2, 1.1, 1.3), ["missed", "missed"]),
        ((0.0, -0.01, 0.01), None, ["met"]),
    ],
)
def test_the_verdict_follows_from_the_side_that_the_interval_lies_on(
    drop: tuple[float, float, float], ratio: tuple[float, float, float] | None, verdicts: list[str]
) -> None:
    accuracy = Accuracy(top1=0.9, low=0.8, high=0.95, n=100, measured_by="engine")
    against = Against(name="net--cpu", engine_sha256="", accuracy=accuracy, drop=drop, new=None, earlier=None, not_timed="")
    interval = Interval(found=ratio[0], low=ratio[1], high=ratio[2], processes=3, spread=0.01) if ratio else None
    assert [gate.verdict for gate in judge_against(against, interval, PROFILE, CLASSIFICATION.metric)] == verdicts


def test_a_release_that_was_changed_is_not_used(dataset: Dataset, tmp_path: Path) -> None:
    folder = a_release(tmp_path / "old", dataset)
    (folder / "engine.onnx").write_bytes(b"another")
    with pytest.raises(VerificationError, match="the file was changed"):
        read_release(folder)


def elsewhere(facts: dict[str, object]) -> object:
    needed = facts["compatibility"]
    assert isinstance(needed, dict)
    return needed.update({"runtime_versions": "==0.1.*"})


def test_what_cannot_be_compared_is_refused_before_training(dataset: Dataset, tmp_path: Path) -> None:
    here, absent = (
        read_release(a_release(tmp_path / name, dataset, same_images=False, edit=edit)) for name, edit in (("here", lambda _: None), ("absent", elsewhere))
    )
    asked = {"task": "classification", "classes": CLASSES, "image_shape": SHAPE, "test_digest": "new"}
    require_comparable(here, **asked)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"its task is another\n  given:   classification\n  allowed: regression"):
        require_comparable(here, **{**asked, "task": "regression"})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="its classes are others"):
        require_comparable(here, **{**asked, "classes": ("a", "b")})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="its engine takes another size"):
        require_comparable(here, **{**asked, "image_shape": (1, 16, 16)})  # type: ignore[arg-type]
    assert absent.absence.startswith("the engine is not valid for this version of onnxruntime (")
    with pytest.raises(DeviceUnavailable, match="its engine does not run here"):
        require_releases([absent], dataset)


def test_the_same_images_need_no_runtime(dataset: Dataset, tmp_path: Path) -> None:
    require_releases([read_release(a_release(tmp_path / "old", dataset, edit=elsewhere))], dataset)


def test_a_release_is_another_input_only_if_its_content_or_this_machine_is(dataset: Dataset, tmp_path: Path) -> None:
    release = read_release(a_release(tmp_path / "old", dataset))
    moved = release.model_copy(update={"folder": tmp_path / "moved"})
    assert moved.identity() == release.identity()
    assert release.model_copy(update={"seal": "b"}).identity() != release.identity()
    assert str(tmp_path) not in release.identity()


def test_each_package_goes_to_its_profile(monkeypatch: pytest.MonkeyPatch, dataset: Dataset, tmp_path: Path) -> None:
    def named(folder: Path, _: Sequence[HardwareProfile]) -> Release:
        profile = load_profile("local-cpu").model_copy(update={"name": folder.name})
        manifest = found.manifest.model_copy(update={"profile": profile})
        return found.model_copy(update={"name": f"net--{folder.name}", "manifest": manifest})

    found = read_release(a_release(tmp_path / "old", dataset))
    monkeypatch.setattr("bonsai.pipeline.run.releases.read_release", named)
    a, b = (load_profile("local-cpu").model_copy(update={"name": name}) for name in ("a", "b"))
    assert read_releases([], [a, b]) == {}
    assert set(read_releases([Path("other")], [a])) == {"a"}
    assert {name: release.name for name, release in read_releases([Path("b"), Path("a")], [a, b]).items()} == {"a": "net--a", "b": "net--b"}
    with pytest.raises(ConfigError, match="its profile is none of this run"):
        read_releases([Path("c")], [a, b])
    with pytest.raises(ConfigError, match="a second package of one profile"):
        read_releases([Path("a"), Path("a")], [a, b])
