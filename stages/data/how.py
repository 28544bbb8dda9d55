"""Options that loaders share: how a file becomes an input."""

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.data.preprocess import Preprocess

CHANNELS = (1, 3, 4)


def make_preprocess(size: int | Sequence[int], channels: int, **how: Any) -> Preprocess:
    """Return how files become inputs, as `data.options` say it.

    Args:
        size: Side of square images, (height, width), or (length,) of series.
        channels: 1, 3 or 4 of images; any number of series.
        how: Other attributes of `Preprocess`; those that are None keep their defaults.

    Raises:
        ConfigError: There is no such preprocessing.
    """
    shape = (size, size) if isinstance(size, int) else tuple(size)
    given = {key: value for key, value in how.items() if value is not None}
    try:
        return Preprocess.model_validate({**Preprocess.of((channels, *shape)).model_dump(), **given})
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, line['loc']))}: {line['msg']}" for line in error.errors()[:3])
        shown = ", ".join(f"{key} {value}" for key, value in {"size": size, "channels": channels, **given}.items())
        allowed = "size N, [height, width] or [length]; channels of at least 1; one mean and one std for each channel; docs/data.md has all"
        raise ConfigError(describe("data.options: no such images", given=f"{shown} ({told})", allowed=allowed, fix="change data.options")) from error


def require_image_channels(channels: int) -> None:
    """Check that image files can be read with so many channels.

    Raises:
        ConfigError: They cannot.
    """
    if channels not in CHANNELS:
        fix = "change data.options.channels; data of other channels goes into .npy files (`csv`, `array`)"
        raise ConfigError(describe("data.options: no such images", given=f"channels {channels}", allowed="channels 1, 3 or 4", fix=fix))
