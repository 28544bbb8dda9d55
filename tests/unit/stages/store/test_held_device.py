"""A stage that measures latency holds the device that it measures on, not this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from scripted_device import use

from bonsai.profiles.loader import load_profile
from bonsai.profiles.schema import HardwareProfile, Target
from bonsai.stages.backends.devices import device_among
from bonsai.stages.backends.local_device import local
from bonsai.stages.backends.remote.remote_device import RemoteDevice
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.store.store import Store, stage

HERE = load_profile("local-cpu")
THERE = load_profile("local-cpu", {"target.device.address": "ssh://kitchen"})


class Held:
    def __init__(self) -> None:
        self.now, self.times = False, 0

    @contextmanager
    def hold(self) -> Iterator[None]:
        self.now, self.times = True, self.times + 1
        yield
        self.now = False


@pytest.mark.parametrize("timed", [True, False])
def test_a_timed_stage_holds_its_device_while_it_runs(timed: bool, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    held, seen = Held(), []

    @stage(version=1, timed=timed)
    def look(out_dir: Path, target: Target) -> Artifact:
        seen.append(held.now)
        return Artifact(folder=out_dir)

    use(held, monkeypatch)
    store.run(look, target=HERE.target)
    store.run(look, target=HERE.target)
    assert (seen, held.times, held.now) == ([timed], int(timed), False)


@pytest.mark.parametrize("inputs", [{"target": THERE.target}, {"timing": "x", "profile": THERE}])
def test_the_device_is_that_of_the_target_or_the_profile(inputs: dict[str, HardwareProfile | Target]) -> None:
    assert isinstance(device_among(inputs), RemoteDevice)
    assert device_among({"target": HERE.target}) is local
    assert device_among({"number": 1}) is local
