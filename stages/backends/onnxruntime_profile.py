"""ONNX Runtime's profile of a session: the kernels that ran, and how long each took."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort

from bonsai.stages.backends.kernel_profile import Kernel
from bonsai.stages.backends.running import feeder
from bonsai.stages.store.room import require_room

WARM = 7  # the first of every so many runs are not counted
CUT_US = 0.5
"""The profiler truncates durations to whole microseconds; half of one is added back to each kernel."""
MORE = 1 << 20
"""Guess of how many bytes a truncated profile lacks."""
INTEGERS = {"int8", "uint8"}
ENDING = "_kernel_time"
"""What ONNX Runtime appends to a node's name for the event of its kernel."""


class SessionProfile:
    """A session whose options enabled profiling."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session

    def feeds(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return a batch as `run` takes it."""
        return feeder({each.name: tuple(each.shape[1:]) for each in self._session.get_inputs()})(images)

    def run(self, feeds: Mapping[str, np.ndarray]) -> None:
        """Run it once."""
        self._session.run(None, feeds)

    def finish(self) -> list[Kernel]:
        """End the profile, delete its file, and return the kernels that ran, in their order.

        Raises:
            OSError: The disk is full.
        """
        events = _read_whole(Path(self._session.end_profiling()))
        found: dict[str, list[dict[str, Any]]] = {}
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith(ENDING):
                found.setdefault(event["name"], []).append(event)
        return [_kernel(name.removesuffix(ENDING), runs) for name, runs in found.items()]


def _read_whole(profile: Path) -> list[dict[str, Any]]:
    """Return the events of a profile, and delete it; ONNX Runtime leaves half of one without a word where the disk is full."""
    text = profile.read_text(encoding="utf-8", errors="replace")
    profile.unlink()
    try:
        events: list[dict[str, Any]] = json.loads(text)
    except json.JSONDecodeError:
        require_room(profile.parent, len(text) + MORE)
        raise
    return events


def _kernel(name: str, runs: list[dict[str, Any]]) -> Kernel:
    """Return one kernel, given its node's name and the events of all its runs."""
    durations = np.array([event["dur"] for event in runs[len(runs) // WARM :]], dtype=float)
    return Kernel(name, runs[0]["args"]["op_name"], _precision(runs[0]), durations + CUT_US)


def _precision(event: dict[str, Any]) -> Literal["int8", "float"]:
    """Return what a kernel computes in: the type that it reads first, so that a QuantizeLinear counts as float."""
    (first, *_) = event["args"]["input_type_shape"]
    return "int8" if INTEGERS & set(first) else "float"
