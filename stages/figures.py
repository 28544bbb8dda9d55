"""Plots of a package, as SVG."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stages.artifacts import History
from stages.pruning.epi import Trigger

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PHASES = {"trunk": ("dense", "tab:blue"), "branch": ("pruned", "tab:orange"), "qat": ("QAT", "tab:green")}


def draw_training(file: Path, trigger: Trigger, history: Sequence[History]) -> None:
    """Draw EPI with its trigger above the learning curve with the moment of the cut.

    Args:
        file: Where the SVG is written.
        trigger: When the branch left the trunk, and the curve until then.
        history: Epochs of trunk, branch and, where it ran, QAT.
    """
    with tempfile.TemporaryDirectory() as cache:
        os.environ.setdefault("MPLCONFIGDIR", cache)  # matplotlib would write to the user's home
        import matplotlib
        from matplotlib.figure import Figure

        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "bonsai"}):
            figure = Figure(figsize=(7, 4.5), layout="constrained")
            above, below = figure.subplots(2, 1, sharex=True)
            _draw_epi(above, trigger)
            _draw_learning(below, trigger, history)
            figure.savefig(file, metadata={"Date": None})


def _draw_epi(axis: "Axes", trigger: Trigger) -> None:
    points = [(epoch, value) for epoch, value in zip(trigger.epochs, trigger.curve, strict=True) if value is not None]
    if points:
        axis.plot(*zip(*points, strict=True), marker="o", ms=3, color="tab:blue")
    axis.axhline(trigger.tau, ls=":", color="grey")
    axis.text(0, trigger.tau, f" fires at {trigger.tau:g}", va="bottom", fontsize=8, color="grey")
    axis.axvline(trigger.epoch, ls="--", color="tab:red")
    axis.set(ylabel="EPI", title=f"pruned {trigger.sentence}")
    axis.title.set_fontsize(9)


def _draw_learning(axis: "Axes", trigger: Trigger, history: Sequence[History]) -> None:
    for phase, (label, colour) in PHASES.items():
        points = [(line.epoch, 100 * line.validation_top1) for line in history if line.phase == phase]
        if points:
            axis.plot(*zip(*points, strict=True), marker="o", ms=3, label=label, color=colour)
    axis.axvline(trigger.epoch, ls="--", color="tab:red", label="cut")
    axis.set(xlabel="epoch", ylabel="validation top-1, %")
    axis.legend(fontsize=8)
