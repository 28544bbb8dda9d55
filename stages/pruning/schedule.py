"""How the removal is spread over training steps, once the widths are chosen.

With a = s / steps, after step s a group of k_0 channels of which k_final stay has
    linear      k_0 - a * (k_0 - k_final)
    geometric   exp(a * log k_final + (1 - a) * log k_0)         FORCE, arXiv 2006.09081
    cubic       k_final + (k_0 - k_final) * (1 - a)^3            AGP, arXiv 1710.01878
channels left, rounded up.
"""

from math import ceil
from typing import Annotated, Literal

from pydantic import Field, model_validator

from bonsai.profiles.located_yaml import Record
from bonsai.stages.pruning.groups import Widths


class ScheduleConfig(Record):
    """Removal in steps.

    Attributes:
        name: Shape of the removal.
        steps: Number of cuts; 1 for ``one_shot``.
        iterations: Optimizer steps after each cut but the last; EPI's paper takes 30 steps of 40 inside one long epoch.
        soft: Channels are masked at every step and cut at the last alone: until then a channel whose score recovers returns
            (`stages/pruning/soft.py`).
    """

    name: Literal["one_shot", "linear", "geometric", "cubic"] = "one_shot"
    steps: Annotated[int, Field(ge=1)] = 1
    iterations: Annotated[int, Field(ge=1)] = 4
    soft: bool = False

    @model_validator(mode="after")
    def _fits(self) -> "ScheduleConfig":
        if (self.name == "one_shot") != (self.steps == 1):
            raise ValueError("`one_shot` has 1 step, and every other schedule at least 2")
        if self.soft and self.steps == 1:
            raise ValueError("`soft` needs a schedule of at least 2 steps: in one shot nothing is masked before it is cut")
        return self


def widths_after(step: int, dense: Widths, final: Widths, config: ScheduleConfig) -> Widths:
    """Return the channels left per group after cut number `step`, from 1 to `config.steps`; a block that is left out leaves at the first."""
    done = step / config.steps
    return {group: min(dense[group], max(_left(config.name, done, dense[group], width), width)) if width else 0 for group, width in final.items()}


def _left(name: str, done: float, first: int, last: int) -> int:
    if done >= 1:
        return last
    shapes: dict[str, float] = {
        "linear": first - done * (first - last),
        "geometric": float(first) ** (1 - done) * float(last) ** done,
        "cubic": last + (first - last) * (1 - done) ** 3,
    }
    return ceil(shapes[name] - 1e-9)
