"""How a network was quantised, and why so."""

from typing import Literal

from bonsai.profiles.located_yaml import Record

Weights = Literal["ptq", "qat"]
"""Weights of a quantised network: only calibrated (PTQ), or also fine-tuned (QAT)."""

Quantised = Literal["ptq", "qat", "mixed"]
"""Which network was kept: PTQ, QAT, or one of them with more layers in float than the recipe names (mixed)."""

GATE_LEVELS = 255
"""A gate between 0 and 1 is held as a uint8."""


class Sensitivity(Record):
    """How much the INT8 form of one layer disturbs the network's outputs.

    Noise is the squared error of the outputs, divided by the square of the float network's outputs.

    Attributes:
        alone: Noise if only this layer is quantised.
        gain: How much less noise the quantised network has if only this layer is float.
    """

    layer: str
    alone: float
    gain: float

    @property
    def noise(self) -> float:
        """The larger of the two, by which layers are ranked."""
        return max(self.alone, self.gain)


class Quantization(Record):
    """Which quantised network was kept, and why.

    Attributes:
        kept: The calibrated network, the fine-tuned one, or one of them with more layers in float than the recipe names. Its
            accuracy is ``validation_<metric>_<kept>`` of the metrics.
        weights: Which of the two it has the weights and scales of.
        max_drop: How much of the metric on the validation split the recipe lets quantisation cost.
        searched: The layers that the search for the fewest left in float, the most sensitive first.
        sensitivities: Sensitivity of every layer, the most sensitive first; empty without a search.
        left_float: Other layers that stay float because no quantiser takes them, with their operation in brackets.
    """

    kept: Quantised
    weights: Weights
    max_drop: float
    searched: tuple[str, ...] = ()
    sensitivities: tuple[Sensitivity, ...] = ()
    left_float: tuple[str, ...] = ()
