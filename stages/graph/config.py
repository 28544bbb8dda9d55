"""How a network is exported."""

from typing import Annotated

from pydantic import Field

from bonsai.profiles.located_yaml import Record
from bonsai.profiles.schema import Target


class ExportConfig(Record):
    """Form of the ONNX file and how closely it must follow the torch network.

    Attributes:
        opset: Version of the default operator set.
        dynamic_batch: Whether the file takes any number of images; if not, it takes those of the profile's `target.batch`.
        min_agreement: Share of the validation images, 0-1, whose prediction must agree with torch's; images between two classes fall to either
            side. Below 1, one image may always differ, however few there are.
        max_mean_difference: Largest mean difference of outputs, relative to their standard deviation.
    """

    opset: Annotated[int, Field(ge=18, le=20)] = 20
    dynamic_batch: bool = True
    min_agreement: Annotated[float, Field(ge=0, le=1)] = 0.98
    max_mean_difference: Annotated[float, Field(gt=0)] = 0.05

    def batch_of(self, target: Target) -> int | None:
        """Return how many images a file for `target` takes; None for any number."""
        return None if self.dynamic_batch else target.batch
