"""How a run goes about its profiles: what runs their stages, and what one that fails does to the others."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from profiles.errors import BonsaiError
from stages.errors import GateMissed
from stages.measurements import Gate
from stages.package import Package
from stages.store import Step

ResultT = TypeVar("ResultT")
Growth = Callable[[], Package | BonsaiError]
"""Grows one profile's branch, and returns its package or how it failed."""


class Conduct(Protocol):
    """How a run goes about its profiles."""

    def step_of(self, profile: str) -> Step:
        """Return what runs the stages of one profile alone."""
        ...

    def attempt(self, profile: str, call: Callable[[], ResultT]) -> ResultT | BonsaiError:
        """Do what concerns one profile alone; return its error, or raise it where it ends the run."""
        ...

    def grow_branches(self, branches: Mapping[str, Growth]) -> dict[str, Package | BonsaiError]:
        """Grow the profiles' branches, in an order of its own choice."""
        ...


class AllOrNothing:
    """One profile after another, and the first that fails ends the run.

    Args:
        step: Runs one stage.
    """

    def __init__(self, step: Step) -> None:
        self._step = step

    def step_of(self, profile: str) -> Step:
        """Return the step of all."""
        return self._step

    def attempt(self, profile: str, call: Callable[[], ResultT]) -> ResultT | BonsaiError:
        """Do it; what it raises is raised."""
        return call()

    def grow_branches(self, branches: Mapping[str, Growth]) -> dict[str, Package | BonsaiError]:
        """Grow one branch after another."""
        return {name: grow_branch() for name, grow_branch in branches.items()}


def require_gates(missed: Mapping[str, Sequence[Gate]]) -> None:
    """Check that no package misses a gate.

    Args:
        missed: By package, the gates that it misses.

    Raises:
        GateMissed: One does; all are named.
    """
    sentences = [f"{name}: {gate.sentence}" for name, gates in missed.items() for gate in gates]
    if sentences:
        raise GateMissed("; ".join(sentences))
