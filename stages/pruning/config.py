"""What is pruned, when, and how far."""

from typing import Annotated

from pydantic import Field

from profiles.source import Record
from stages.pruning.epi import EpiConfig
from stages.pruning.policy import PolicyConfig
from stages.pruning.schedule import ScheduleConfig
from stages.pruning.scores import Criterion, Normalisation


class PruneConfig(Record):
    """Structured pruning to a latency budget.

    Attributes:
        policy: When a branch leaves the trunk.
        epi: Settings of the policy ``epi``.
        schedule: How the removal is spread over training steps.
        criterion: By what channels are ranked and widths valued (`stages/pruning/scores.py`).
        normalisation: How the scores of different groups are made comparable.
        floor: Least share of a group's channels, 0-1, that is kept.
        rounds: Most networks that the closed loop builds and times.
        margin: Share of the budget, 0-1, that the closed loop leaves free for the spread of later measurements.
        tolerance: The loop ends once the latency lies at most this share below what it aims at.
        batchnorm_batches: Training batches that BatchNorm's statistics are estimated on after the cut.
    """

    policy: PolicyConfig = PolicyConfig()
    epi: EpiConfig = EpiConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    criterion: Criterion = "magnitude_l2"
    normalisation: Normalisation = "none"
    floor: Annotated[float, Field(gt=0, le=1)] = 0.1
    rounds: Annotated[int, Field(ge=1)] = 6
    margin: Annotated[float, Field(ge=0, lt=0.5)] = 0.015
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.015
    batchnorm_batches: Annotated[int, Field(ge=1)] = 18
