"""Sends figures of a run to an experiment tracker, if the user has configured one.

    with tracking("tensorboard:runs", run="resnet-edge"):
        compress(...)

The tracker is not an input of any stage, so a change of tracker never causes a new training. A stage that continues from a checkpoint tracks only
its new steps; a stage that is already finished tracks nothing.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from bonsai.stages.imports.registry import resolve
from bonsai.stages.training.progress import say

VARIABLE = "BONSAI_TRACKER"
"""Environment variable that names the tracker if no option does."""
TRACKERS = {
    "tensorboard": "bonsai.stages.training.tensorboard_tracker:open_tensorboard",
    "mlflow": "bonsai.stages.training.mlflow_tracker:open_mlflow",
}
"""Makes a tracker from the text after the colon (may be empty) and the name of the run."""


class Tracker(Protocol):
    """Takes figures. One that raises is given no more: it must not cost hours of training."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Take named figures of an optimizer step."""
        ...

    def close(self, *, finished: bool) -> None:
        """Write what is left; `finished` is whether the run came to its end."""
        ...


_trackers: list[Tracker] = []
_scope: ContextVar[tuple[str, ...]] = ContextVar("scope", default=())
"""Trackers and names of the current thread, because branches may run in parallel threads."""


@contextmanager
def tracking(spec: str | None, run: str) -> Iterator[None]:
    """Send what `track` is given meanwhile to a tracker.

    Args:
        spec: A name of the table or an import string ``module:factory``, and behind one more colon where to; None tracks nothing.
        run: Name of the run.

    Raises:
        ConfigError: There is no such tracker, its package is not installed, or it cannot be used as configured.
    """
    if spec is None:
        yield
        return
    name, _, where = spec.partition(":")
    if name not in TRACKERS and where:
        factory, _, where = where.partition(":")
        name = f"{name}:{factory}"
    with sending_to(resolve(name, TRACKERS, "tracker")(where, run)):
        yield


@contextmanager
def sending_to(tracker: Tracker) -> Iterator[None]:
    """Send what `track` is given meanwhile to an open tracker, which is closed at the end."""
    _trackers.append(tracker)
    finished = False
    try:
        yield
        finished = True
    finally:
        if tracker in _trackers:
            _trackers.remove(tracker)
            with _harmless(tracker):
                tracker.close(finished=finished)


@contextmanager
def scope(name: str) -> Iterator[None]:
    """Put a name in front of what is tracked meanwhile, as that of a target."""
    token = _scope.set((*_scope.get(), name))
    try:
        yield
    finally:
        _scope.reset(token)


def track(metrics: Mapping[str, float], step: int) -> None:
    """Send figures to the tracker, if there is one.

    Args:
        metrics: Figures by name; slashes make groups.
        step: Optimizer step.
    """
    named = {"/".join((*_scope.get(), name)): float(value) for name, value in metrics.items()}
    for tracker in tuple(_trackers):
        with _harmless(tracker):
            tracker.log(named, step)


@contextmanager
def _harmless(tracker: Tracker) -> Iterator[None]:
    """Report what a tracker raises, and give it no more figures."""
    try:
        yield
    except Exception as error:  # of the user's own code, or of a disk or server far away
        if tracker in _trackers:
            _trackers.remove(tracker)
        say(f"{type(tracker).__name__} no longer takes figures, and is given none: {type(error).__name__}: {error}")
