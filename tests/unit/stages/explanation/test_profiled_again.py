from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest

from bonsai.profiles.loader import load_profile
from bonsai.stages.backends.device import Device, KernelTime
from bonsai.stages.backends.engine import EngineFile
from bonsai.stages.explanation.engines import ENGINE, FRESH, TRIES, _Built, _times

FILE = EngineFile(file=Path("engine.onnx"), target=load_profile("local-cpu").target)
BUILT = {name: _Built(FILE, np.zeros((1, 1, 8, 8), np.float32), onnx.ModelProto(), (), {"node": "stem"}) for name in (ENGINE, FRESH)}


class Profiler:
    """Gives the engine's kernel these microseconds in turn, and 10 to that of the fresh engine."""

    def __init__(self, *microseconds: float) -> None:
        self.waiting, self.asked = list(microseconds), 0

    def kernel_times(self, engines: Mapping[str, EngineFile], inputs: Mapping[str, np.ndarray]) -> dict[str, tuple[KernelTime, ...]]:
        self.asked += 1
        found = {ENGINE: self.waiting.pop(0), FRESH: 10.0}
        return {name: (KernelTime(name="node", op="Conv", precision="int8", microseconds=us),) for name, us in found.items()}


@pytest.mark.parametrize(
    ("found", "asked", "counts"),
    [((11.0,), 1, 11.0), ((90.0, 12.0), 2, 12.0), ((90.0, 95.0, 91.0), TRIES, 90.0)],
    ids=["calm", "disturbed once", "really slow"],
)
def test_engines_are_profiled_again_while_a_layer_takes_too_long_and_the_shortest_time_counts(found: tuple[float, ...], asked: int, counts: float) -> None:
    profiler = Profiler(*found)
    times = _times(cast(Device, profiler), BUILT)
    assert profiler.asked == asked
    assert times[ENGINE]["stem"].microseconds == counts
