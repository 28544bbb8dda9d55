"""How files and arrays become what a network takes, as data that travels with the network. `pixels.py` does what this record says.

This file needs neither torch nor Pillow.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bonsai.profiles.located_yaml import Record

Shape = tuple[int, ...]
"""(channels, height, width) of an image, (channels, length) of a series."""
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
WHITE = 255.0
"""White in images of 8 bits."""


class Preprocess(Record):
    """The way from a file or an array to a network's input: resized, cropped, scaled to [0, 1], minus `mean`, over `std`; float32, channels first.

    Attributes:
        channels: Of an image or a series.
        size: Height and width in pixels, or the length of a series.
        full: Height and width that images get first, where they are made smaller to `size` at the end (`prune.resolutions`); None where they are not.
        mean: For each channel, of values in [0, 1].
        std: For each channel, of values in [0, 1].
        resize: ``stretch``: to the size, whatever the aspect ratio is. ``crop``: the smaller image that covers the size; its centre is kept.
            ``pad``: the larger image that fits into the size; black is added around it.
        crop: Share of the side that the centre crop keeps, 0-1: the image is resized for `size` / `crop` first. torchvision and timm often use 0.875.
        interpolation: ``bilinear``, ``bicubic`` or ``nearest``.
        scale: Value that stands for 1, where 0 stands for 0: 255 for images of 8 bits, 65535 for 16 bits; or (black, white), the values that stand for
            0 and 1. Samples are kept as uint8 for 255, as uint16 for whole numbers from 256 to 65535, else as float32.
        deep: Value of white in image files of more than 8 bits, by kind, where they are scaled to 8 bits: ``grey`` for integers, ``fractions`` for floats.
    """

    channels: Count
    size: tuple[Count, Count] | tuple[Count]
    mean: tuple[float, ...]
    std: tuple[Positive, ...]
    resize: Literal["stretch", "crop", "pad"] = "stretch"
    crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    scale: Positive | tuple[float, float] = WHITE
    deep: dict[str, Positive] = {}
    full: tuple[Count, Count] | None = None

    @classmethod
    def of(cls, image_shape: Shape) -> "Preprocess":
        """Return Bonsai's own preprocessing of images (channels, height, width) or series (channels, length): inputs are in [-1, 1]."""
        channels, *size = image_shape
        return cls.model_validate({"channels": channels, "size": size, "mean": (0.5,) * channels, "std": (0.5,) * channels})

    @model_validator(mode="after")
    def _one_for_each_channel(self) -> "Preprocess":
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"`mean` and `std` must have one number for each of the {self.channels} channels")
        if isinstance(self.scale, tuple) and self.scale[0] >= self.scale[1]:
            raise ValueError("`scale` must be (black, white), the first below the second")
        if self.full is not None and (len(self.size) != 2 or any(side > whole for side, whole in zip(self.size, self.full, strict=True))):
            raise ValueError("`full` must be the height and width of images that are at least as large as `size`")
        return self

    @property
    def image_shape(self) -> Shape:
        """Shape of an input: (channels, height, width) or (channels, length)."""
        return (self.channels, *self.size)

    def at(self, size: tuple[int, int]) -> "Preprocess":
        """Return the same for images that are made smaller at the end, to a height and width."""
        return Preprocess.model_validate({**self.model_dump(), "size": size, "full": self.full or self.size})

    @property
    def whole(self) -> "Preprocess":
        """The same for images that are not made smaller at the end."""
        return self if self.full is None else self.model_copy(update={"size": self.full, "full": None})

    @property
    def sentence(self) -> str:
        """What is done to the values, for people."""
        values = "pixels" if len(self.size) > 1 else "values"
        scaled = f"{values} / {self.scale:g}" if isinstance(self.scale, float) else f"({values} - {self.scale[0]:g}) / {self.scale[1] - self.scale[0]:g}"
        return f"{self._fitted}{scaled}, minus {_written(self.mean)}, over {_written(self.std)}"

    @property
    def _fitted(self) -> str:
        """How images get their size, where that is not Bonsai's own way."""
        words = []
        if self.resize != "stretch":
            words.append("resized to cover the size, the centre kept" if self.resize == "crop" else "resized to fit into the size, black around it")
        if self.crop != 1:
            words.append(f"the centre crop keeps {self.crop:g} of the side")
        if self.interpolation != "bilinear":
            words.append(f"{self.interpolation} interpolation")
        if self.full is not None:
            full, size = ("x".join(map(str, each)) for each in (self.full, self.size))
            words.append(f"made {full} first, then {size} by bilinear interpolation")
        return "".join(f"{word}; " for word in words)


def scale_of(value_range: tuple[float, float], *, fractions: bool) -> float | tuple[float, float]:
    """Return the scale of samples in this range: one number for whole numbers from 0 on, (black, white) for others."""
    black, white = (float(value) for value in value_range)
    return (black, white) if black or fractions else white


def _written(values: tuple[float, ...]) -> str:
    """Return one number where all channels have the same."""
    return str(values[0] if len(set(values)) == 1 else values)
