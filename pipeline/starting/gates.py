"""The accuracy gate that `bonsai init` writes: one that the test samples can prove."""

from math import ceil

from bonsai.pipeline.starting.samples import Samples
from bonsai.stages.tasks.registry import task_named

ALIKE = 0.05
"""Share of the predictions on which two networks are taken to differ when the accuracy gate is chosen."""
LEAST_DROP = 0.02


def choose_drop(samples: Samples) -> tuple[float, str]:
    """Return an accuracy gate that the test samples can prove, and why, in comment lines."""
    task, count = task_named(samples.task), samples.parts["test"]
    least, likely = (task.provable(samples.targets, count, differing) for differing in (0.0, ALIKE))
    assert least is not None
    assert likely is not None  # None is for errors of figures
    drop = min(max(LEAST_DROP, ceil(100 * likely.drop) / 100), 1.0)
    assumed = f", {least.assumed}" if least.assumed else ""
    why = (
        f"Largest allowed drop of {task.metric.label} from the dense network to the engine: "
        f"the upper end of its 95 % interval on the {count} test images must not be higher.\n"
        f"{count} images cannot prove a drop below {least.drop:.3f}, even if no prediction changes{assumed}; "
        f"{LEAST_DROP} needs {task.samples_to_prove(LEAST_DROP, samples.targets)} images."
    )
    return drop, why
