"""A folder of images, one sub-folder per class."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from profiles.errors import ConfigError, describe
from stages.data.registry import LoadedImages

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}


def load_image_folder(*, root: str, size: int = 64, channels: int = 3) -> LoadedImages:
    """Load ``root/<class>/<image>``, resized to `size` pixels a side.

    Args:
        root: The folder.
        size: Side of the square images in pixels.
        channels: 3 for colour, 1 for grey.

    Raises:
        ConfigError: The folder does not exist, or holds fewer than two classes with images.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise ConfigError(
            describe("data.options.root: no such folder", given=root, allowed="a folder with one sub-folder of images per class", fix="check the path")
        )
    classes = tuple(sorted(child.name for child in folder.iterdir() if child.is_dir()))
    files = [(file, index) for index, name in enumerate(classes) for file in sorted((folder / name).iterdir()) if file.suffix.lower() in SUFFIXES]
    if len({label for _, label in files}) < 2:
        raise ConfigError(
            describe(
                "data.options.root: fewer than two classes with images",
                given=f"{root}: {len(classes)} sub-folders, {len(files)} images",
                allowed=f"at least two sub-folders that hold {', '.join(sorted(SUFFIXES))} files",
                fix="sort the images into one sub-folder per class",
            )
        )
    mode = "L" if channels == 1 else "RGB"
    pixels = np.stack([_read(file, mode, size) for file, _ in files])
    images = torch.from_numpy(pixels).reshape(len(files), size, size, channels).permute(0, 3, 1, 2).contiguous()
    return LoadedImages(images, torch.tensor([label for _, label in files]), classes, "of the user's own images: not stated")


def _read(file: Path, mode: str, size: int) -> np.ndarray:
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert(mode).resize((size, size), Image.Resampling.BILINEAR))
    except (OSError, ValueError) as error:
        raise ConfigError(
            describe(f"{file}: cannot be read as an image", given=error, allowed=f"{', '.join(sorted(SUFFIXES))} files", fix="remove or mend the file")
        ) from error
