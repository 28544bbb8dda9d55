"""Branches in threads, their stages in child processes."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from bonsai.pipeline.recipes.recipe import load_recipe
from bonsai.pipeline.run.side_by_side import ChildProcesses, ProcessLost, Turns, branches_at_once, grow_side_by_side
from bonsai.profiles.errors import BudgetError
from bonsai.profiles.loader import load_profile
from bonsai.profiles.located_yaml import Record
from bonsai.stages.backends.devices import address_among
from bonsai.stages.data.config import DataConfig
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.steps.prepare import prepare
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.store.store import Store, stage
from bonsai.stages.training.progress import say
from bonsai.stages.training.tracking import scope, sending_to, track

WAIT = 10  # seconds, for what happens at once


class Config(Record):
    how: str


class Made(Artifact):
    by: int


@stage(version=1)
def make(out_dir: Path, config: Config) -> Made:
    say("made")
    track({"loss": 1.0}, step=3)
    if config.how == "refused":
        raise BudgetError("not below 3 ms")
    if config.how == "bug":
        raise KeyError("widths")
    if config.how == "starts another":
        return Made(folder=out_dir, by=subprocess.Popen(["sleep", "600"]).pid)
    if config.how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return Made(folder=out_dir, by=os.getpid())


@pytest.fixture(scope="module")
def children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChildProcesses]:
    with ChildProcesses(Store(tmp_path_factory.mktemp("children"))) as started:
        yield started


def test_a_stage_in_a_child_leaves_the_bytes_that_it_leaves_here(children: ChildProcesses, digits: Dataset) -> None:
    made = children.run(prepare, data=DataConfig(name="digits", options={"size": 16}), content="")
    assert made.digest == digits.digest


class Collected:
    """A tracker that keeps what it is given."""

    def __init__(self) -> None:
        self.figures: list[tuple[str, float, int]] = []

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.figures += [(name, value, step) for name, value in metrics.items()]

    def close(self, *, finished: bool) -> None: ...


def test_figures_of_children_come_under_the_name_of_their_own_branch(children: ChildProcesses) -> None:
    def grow(name: str) -> Made:
        with scope(name):
            return children.run(make, config=Config(how=f"tracked {name}"))

    tracker = Collected()
    with sending_to(tracker):
        grow_side_by_side({name: partial(grow, name) for name in ("left", "right")}, 2, children.stop)
    assert sorted(tracker.figures) == [("left/loss", 1.0, 3), ("right/loss", 1.0, 3)]


def test_one_child_runs_one_stage_after_another_and_repeats_nothing(children: ChildProcesses) -> None:
    first, second = (children.run(make, config=Config(how=how)) for how in ("a", "b"))
    assert first.by == second.by != os.getpid()
    assert children.run(make, config=Config(how="a")) == first


def test_a_file_of_the_working_directory_hides_no_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "select.py").write_text("raise ImportError('hidden')")
    monkeypatch.chdir(tmp_path)
    with ChildProcesses(Store(tmp_path / "store")) as started:
        assert started.run(make, config=Config(how="well")).by != os.getpid()


def test_what_a_child_started_is_ended_with_it(tmp_path: Path) -> None:
    with ChildProcesses(Store(tmp_path)) as started:
        grandchild = started.run(make, config=Config(how="starts another")).by
        os.kill(grandchild, 0)
    assert wait_for_end(grandchild)


def wait_for_end(process: int) -> bool:
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        state = Path(f"/proc/{process}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_the_log_of_a_child_appears_here_under_the_branchs_name(children: ChildProcesses, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="bonsai"):
        made = grow_side_by_side({name: lambda name=name: children.run(make, config=Config(how=name)) for name in ("left", "right")}, 2, children.stop)  # type: ignore[misc]
    assert sorted(caplog.messages) == ["left: made", "right: made"]
    assert set(made) == {"left", "right"}


def test_an_error_of_a_child_is_raised_here(children: ChildProcesses) -> None:
    with pytest.raises(BudgetError, match="not below 3 ms"):
        children.run(make, config=Config(how="refused"))
    with pytest.raises(KeyError, match="widths") as caught:
        children.run(make, config=Config(how="bug"))
    assert "in make" in caught.value.__notes__[0]


def test_a_killed_child_fails_its_stage_alone(children: ChildProcesses) -> None:
    with pytest.raises(ProcessLost, match="make: its process was ended by signal 9"):
        children.run(make, config=Config(how="killed"))
    assert children.run(make, config=Config(how="after")).by != os.getpid()


def test_what_is_timed_runs_alone_and_is_not_overtaken() -> None:
    turns, order = Turns(), list[str]()
    training, release = threading.Event(), threading.Event()

    def together(name: str) -> None:
        with turns.take(alone=False):
            training.set()
            assert release.wait(WAIT)
            order.append(name)

    def alone() -> None:
        with turns.take(alone=True):
            order.append("timed")

    first = threading.Thread(target=together, args=["first"])
    first.start()
    assert training.wait(WAIT)
    timed = threading.Thread(target=alone)
    timed.start()
    while not turns._waiting:
        pass
    late = threading.Thread(target=together, args=["late"])
    late.start()
    assert order == []
    release.set()
    for thread in (first, timed, late):
        thread.join(WAIT)
    assert order == ["first", "timed", "late"]


PI, JETSON = "ssh://pi", "ssh://jetson"


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ((PI, True), (JETSON, True), True),
        ((PI, True), (PI, True), False),
        ((PI, True), (PI, False), False),  # building an engine there would be in its milliseconds
        ((PI, True), (None, False), True),  # this machine trains on
        ((PI, True), (None, True), True),
        ((PI, False), (None, True), False),  # what is not timed works here too
        ((PI, False), (JETSON, False), True),
        ((None, True), (None, False), False),
    ],
)
def test_one_timing_at_a_time_on_each_device(first: tuple[str | None, bool], second: tuple[str | None, bool], together: bool, tmp_path: Path) -> None:
    children, both = ChildProcesses(Store(tmp_path)), threading.Barrier(2)

    def take(address: str | None, timed: bool) -> bool:
        with children._turn(address, timed=timed):
            try:
                both.wait(WAIT if together else 0.3)
            except threading.BrokenBarrierError:
                return False
            return True

    with ThreadPoolExecutor(2) as pool:
        met = [pool.submit(take, *turn) for turn in (first, second)]
    assert [each.result() for each in met] == [together] * 2


def test_the_address_of_a_stage_is_that_of_its_target_or_its_profile() -> None:
    profile = load_profile("cortex-a76", {"target.device.address": PI})
    assert address_among({"engine": 1, "profile": profile}) == address_among({"target": profile.target}) == PI
    assert address_among({"target": load_profile("local-cpu").target}) is address_among({"data": 1}) is None


def test_the_first_branch_that_raises_stops_the_others() -> None:
    stopped = threading.Event()

    def wait() -> str:
        assert stopped.wait(WAIT)
        return "stopped"

    def fail() -> str:
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        grow_side_by_side({"waits": wait, "fails": fail}, 2, stopped.set)
    assert stopped.is_set()


def test_as_many_branches_grow_at_once_as_the_cores_can_train(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    training = load_recipe("resnet-edge", {"training.threads": 2}).training
    assert [branches_at_once(training, profiles) for profiles in (1, 3, 9)] == [1, 3, 4]
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert branches_at_once(training, 3) == 1
    assert branches_at_once(load_recipe("resnet-edge", {"training.device": "cuda"}).training, 3) == 1
