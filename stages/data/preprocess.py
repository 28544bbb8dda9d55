"""How images become what a network takes, as data that travels with the network."""

from typing import Annotated

from pydantic import Field, model_validator

from bonsai.profiles.located_yaml import Record

Shape = tuple[int, int, int]
"""(channels, height, width)."""
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Preprocess(Record):
    """The way from 8-bit images to a network's input: pixels / 255, minus `mean`, over `std`; float32, channels first.

    Attributes:
        channels: Of an image.
        size: Height and width in pixels.
        mean: For each channel, of pixels in [0, 1].
        std: For each channel, of pixels in [0, 1].
    """

    channels: Count
    size: tuple[Count, Count]
    mean: tuple[float, ...]
    std: tuple[Positive, ...]

    @classmethod
    def of(cls, image_shape: Shape) -> "Preprocess":
        """Return Bonsai's own preprocessing of images (channels, height, width): inputs are in [-1, 1]."""
        channels, height, width = image_shape
        return cls(channels=channels, size=(height, width), mean=(0.5,) * channels, std=(0.5,) * channels)

    @model_validator(mode="after")
    def _one_for_each_channel(self) -> "Preprocess":
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"`mean` and `std` must have one number for each of the {self.channels} channels")
        return self

    @property
    def image_shape(self) -> Shape:
        """Shape of an input: (channels, height, width)."""
        return (self.channels, *self.size)

    @property
    def sentence(self) -> str:
        """What is done to the pixels, for people."""
        return f"pixels / 255, minus {_written(self.mean)}, over {_written(self.std)}"


def _written(values: tuple[float, ...]) -> str:
    """Return one number where all channels have the same."""
    return str(values[0] if len(set(values)) == 1 else values)
