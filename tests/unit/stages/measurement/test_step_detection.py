from math import ceil

import numpy as np
import pytest

from bonsai.profiles.operator_class import OperatorClass
from bonsai.stages.measurement.step_detection import SWEEP, detect_step, sweep_steps


@pytest.mark.parametrize("step", [4, 8, 16, 32])
def test_the_step_of_a_noisy_staircase_is_found(step: int) -> None:
    rng = np.random.default_rng(0)
    times = [(3 + 2 * ceil(width / step) * step / 16) * rng.normal(1, 0.01) for width in SWEEP]
    found, share = detect_step(SWEEP, times)
    assert found == step
    assert share > 0.98


def test_every_kind_of_operator_is_swept_on_both_sides() -> None:
    classes = [OperatorClass(op="conv", kernel=3, height=h, width=h) for h in (32, 16, 8)]
    classes += [OperatorClass(op="conv", kernel=3, height=8, width=8, group_channels=1), OperatorClass(op="linear")]
    classes += [OperatorClass(op="conv", kernel=3, height=8, width=8, group_channels=8)]  # of whole groups, which have no step
    seen = set()

    def measure(cls: OperatorClass, ci: int, co: int) -> float:
        seen.add(cls)
        return float(ceil(co / 16) * ceil(ci / 4))

    found = sweep_steps(classes, measure)
    assert {kind: step for kind, (step, _) in found.items() if "linear" not in kind and "depth" not in kind} == {"conv 3x3 out": 16, "conv 3x3 in": 4}
    assert set(found) == {"conv 3x3 out", "conv 3x3 in", "depthwise conv 3x3", "linear out", "linear in"}
    assert classes[1] in seen
    assert classes[0] not in seen
