"""How a run goes about its profiles: what runs their stages, and what one that fails does to the others."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from bonsai.profiles.errors import BonsaiError
from bonsai.stages.delivery.package_record import Package
from bonsai.stages.errors import GateMissed
from bonsai.stages.measurement.measurements import Gate
from bonsai.stages.measurement.verdicts import fails
from bonsai.stages.store.store import Step
from bonsai.stages.training.progress import say

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


def require_gates(gates: Mapping[str, Sequence[Gate]], *, allow_undecided: bool = False) -> None:
    """Check that every package meets its gates.

    Args:
        gates: Gates by package.
        allow_undecided: Whether a gate may be undecided; it is told.

    Raises:
        GateMissed: A gate is missed, or undecided where it may not be; all of these are named.
    """
    unmet = [(gate, f"{name}: {gate.sentence}") for name, found in gates.items() for gate in found if not gate.passed]
    failing = [sentence for gate, sentence in unmet if fails(gate, allow_undecided)]
    if failing:
        raise GateMissed("; ".join(failing))
    for _, sentence in unmet:
        say(f"allowed to be undecided: {sentence}")
