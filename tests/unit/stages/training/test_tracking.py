"""Figures that go to a tracker, and that nothing else depends on it."""

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from bonsai import compress
from bonsai.profiles.errors import ConfigError
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.pruning.config import RegulariserConfig
from bonsai.stages.steps.initialise import initialise
from bonsai.stages.steps.train_dense import train_dense
from bonsai.stages.store.store import Store
from bonsai.stages.training.config import TrainConfig
from bonsai.stages.training.tracking import TRACKERS, scope, sending_to, track, tracking

TINY = str(Path(__file__).parents[3] / "integration" / "configs" / "tiny.yaml")
Logged = list[tuple[int, str]]


class ListTracker:
    """Keeps steps and names in a list of the class, which a test empties."""

    logged: Logged = []
    killed_after: int | None = None

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.logged.extend((step, name) for name in metrics)
        if step == self.killed_after:
            raise KeyboardInterrupt

    def close(self, *, finished: bool) -> None:
        self.logged.append((-1, "finished" if finished else "failed"))


def open_list(where: str, run: str) -> ListTracker:
    return ListTracker()


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Logged:
    found: Logged = []
    monkeypatch.setattr(ListTracker, "logged", found)
    return found


def test_nothing_is_tracked_by_default(logged: Logged) -> None:
    with tracking(None, "run"):
        track({"loss": 1.0}, 1)
    assert logged == []


def test_scopes_stand_in_front_and_the_tracker_is_closed(logged: Logged) -> None:
    with tracking(f"{__name__}:open_list:somewhere", "run"), scope("target"), scope("fp32"):
        track({"loss": 1.0, "top1": 0.5}, 3)
    track({"loss": 1.0}, 4)
    assert logged == [(3, "target/fp32/loss"), (3, "target/fp32/top1"), (-1, "finished")]


def test_a_tracker_that_fails_is_reported_once_and_given_no_more(caplog: pytest.LogCaptureFixture) -> None:
    calls = []

    class Full:
        def log(self, metrics: Mapping[str, float], step: int) -> None:
            calls.append(step)
            raise OSError(28, "No space left on device")

        def close(self, *, finished: bool) -> None:
            raise AssertionError

    with sending_to(Full()):
        track({"loss": 1.0}, 1)
        track({"loss": 1.0}, 2)
    assert calls == [1]
    assert caplog.messages == ["Full no longer takes figures, and is given none: OSError: [Errno 28] No space left on device"]


def test_a_training_that_goes_on_tracks_new_steps_alone_and_a_finished_one_nothing(
    digits: Dataset, small_model: ModelConfig, store: Store, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = TrainConfig(epochs=2, batch_size=256, warmup_epochs=0)
    epoch = digits.sizes["train"] // 256
    initial = store.run(initialise, dataset=digits, model=small_model, weights=None)
    inputs = {"dataset": digits, "training": training, "regulariser": RegulariserConfig(), "regularised": (), "previous": initial}
    spec = f"{__name__}:open_list"
    monkeypatch.setattr(ListTracker, "killed_after", 2 * epoch)
    with pytest.raises(KeyboardInterrupt), tracking(spec, "run"):
        store.run(train_dense, **inputs, stop=2 * epoch)
    monkeypatch.setattr(ListTracker, "killed_after", None)
    with tracking(spec, "run"):
        first = store.run(train_dense, **inputs, stop=2 * epoch)
    assert [name for step, name in logged if step == -1] == ["failed", "finished"]
    # killed before the second epoch was kept: that one is trained, and tracked, again
    steps = [step for step, name in logged if name == "trunk/loss"]
    assert steps == [epoch, 2 * epoch, 2 * epoch]
    logged.clear()
    with tracking(spec, "run"):
        assert store.run(train_dense, **inputs, stop=2 * epoch) == first
    assert logged == [(-1, "finished")]


def test_tensorboard_reads_what_was_tracked(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="pip install 'bonsai-compress[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for losses in ({1: 2.0, 2: 1.5}, {3: 1.25}):  # a run that was stopped, and goes on
        with tracking(f"tensorboard:{tmp_path}", "tiny"), scope("target/fp32"):
            for step, loss in losses.items():
                track({"branch/loss": loss}, step)
    events = EventAccumulator(str(tmp_path / "tiny"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("target/fp32/branch/loss")] == [(1, 2.0), (2, 1.5), (3, 1.25)]


@pytest.mark.filterwarnings("default")  # MLflow's own, of the libraries under it
def test_mlflow_reads_what_was_tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="pip install 'bonsai-compress[mlflow]'")
    address = f"sqlite:///{tmp_path}/store.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with tracking("mlflow", "tiny"), scope("target/fp32"):
        track({"branch/loss": 2.0}, 1)
        track({"branch/loss": 1.5}, 2)
    client = mlflow.MlflowClient(address)
    (run,) = client.search_runs([client.get_experiment_by_name("bonsai").experiment_id])
    assert (run.info.run_name, run.info.status) == ("tiny", "FINISHED")
    assert [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, "target/fp32/branch/loss")] == [(1, 2.0), (2, 1.5)]


@pytest.mark.parametrize(
    ("spec", "message"),
    [("tensorboard", "needs a folder"), ("mlflow", "has no store"), ("wandb:x", "tracker"), ("tensorboard:/proc/none", "cannot be written")],
)
def test_a_tracker_that_cannot_be_used_ends_the_run_before_training(spec: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if spec == "tensorboard:/proc/none":
        pytest.importorskip("tensorboard", reason="pip install 'bonsai-compress[tensorboard]'")
    monkeypatch.setenv("BONSAI_TRACKER", spec)
    with pytest.raises(ConfigError, match=message) as caught:
        compress(TINY, "local-cpu", store=tmp_path / "store")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "store" / "train_dense").exists()


@pytest.mark.parametrize(("tracker", "module"), [("tensorboard:runs", "torch.utils.tensorboard"), ("mlflow:sqlite:///x.db", "mlflow")])
def test_a_missing_extra_names_itself(tracker: str, module: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    name = tracker.partition(":")[0]
    assert name in TRACKERS
    with pytest.raises(ConfigError, match=rf"pip install 'bonsai-compress\[{name}\]'"), tracking(tracker, "run"):
        pass
    assert list(tmp_path.iterdir()) == []
