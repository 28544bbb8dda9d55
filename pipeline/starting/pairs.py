"""Images and their masks: which folders hold them, and which mask is of which image.

root/images/1.jpg, root/masks/1.png                                  the recipe splits
root/train/images/1.jpg, root/train/masks/1.png, root/val/...        split as it is
root/images/train/1.jpg, root/masks/train/1.png, root/images/val/... likewise
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.data.files import SUFFIXES
from bonsai.stages.data.registry import PARTS, TRAIN
from bonsai.stages.imports.contents import listed_few

IMAGES = ("image", "images", "img", "imgs")
MASKS = ("mask", "masks", "label", "labels", "annotation", "annotations")
"""Names that a folder of masks has beside a folder of `IMAGES`."""
MARKS = ("_mask", "-mask", "_label", "_labels", "_gt", "_seg")
"""What the name of a mask may have behind that of its image."""
NAMED = "images/a.jpg with masks/a.png or masks/a_mask.png; in train/, val/ and test/, or without these"


class Pair(NamedTuple):
    """An image and its mask; `part` is None where the recipe splits."""

    image: Path
    mask: Path
    part: int | None


class Pairs(NamedTuple):
    """What lies in folders of images and masks.

    Attributes:
        root: Folder that holds all of them.
        pairs: Sorted by the folder and the name of the image.
        images: Images without a mask.
        masks: Masks without an image.
    """

    root: Path
    pairs: tuple[Pair, ...]
    images: tuple[Path, ...]
    masks: tuple[Path, ...]


def find_pairs(data: Path, masks: Path | None) -> Pairs | None:
    """Pair images with masks by their names, or return None where a folder has no folders of both.

    Args:
        data: Folder of images, if `masks` is given; else the folder that may hold both.
        masks: Folder of masks.

    Raises:
        ConfigError: A folder is not there, no image has a mask, a name is there twice, or only some images lie in train, val or test.
    """
    if masks is None:
        root, folders = data, _folders(data) if data.is_dir() else []
    else:
        for option, place in (("--data", data), ("--masks", masks)):
            if not place.is_dir():
                raise ConfigError(describe(f"{option}: no such folder", given=place, allowed="a folder with images or masks", fix="check the path"))
        root, folders = _common(data, masks), [(data, masks)]
        if hidden := [place for place in (data, masks) if any(step.startswith(".") for step in _steps(place, root))]:
            allowed = "names that do not begin with a dot: only these are part of the input"
            raise ConfigError(describe("a folder of images or masks is hidden", given=hidden[0], allowed=allowed, fix="rename it"))
    if not folders:
        return None
    pairs, alone_images, alone_masks = list[Pair](), list[Path](), list[Path]()
    for image_folder, mask_folder in folders:
        images = _by_name(image_folder, beside=mask_folder)
        wanted = _by_name(mask_folder, beside=image_folder) if mask_folder else {}
        of_image = {_image_of(name, images): name for name in sorted(wanted, key=len, reverse=True)}  # a mask of the image's own name wins
        for name, image in images.items():
            if name in of_image:
                pairs.append(Pair(image, wanted.pop(of_image[name]), _part_of(image, image_folder, root)))
            else:
                alone_images.append(image)
        alone_masks += wanted.values()
    _require_pairs(pairs, alone_images, alone_masks)
    return Pairs(root, tuple(pairs), tuple(alone_images), tuple(alone_masks))


def _folders(root: Path) -> list[tuple[Path, Path | None]]:
    """Return each folder of images below a root with the folder of its masks, which some may lack; nothing where all lack it.

    Raises:
        ConfigError: Several folders may hold images or masks.
    """
    found = list[tuple[Path, Path | None]]()
    for place in (root, *(child for child in sorted(root.iterdir()) if child.is_dir() and child.name.lower() in PARTS)):
        children = [child for child in sorted(place.iterdir()) if child.is_dir()]
        images, masks = ([child for child in children if child.name.lower() in names] for names in (IMAGES, MASKS))
        if images and masks and len(images) + len(masks) > 2:
            given, fix = ", ".join(str(child) for child in (*images, *masks)), "name them: --data IMAGES --masks MASKS"
            raise ConfigError(describe("several folders may hold the images or the masks", given=given, allowed="one of each", fix=fix))
        if images:
            found.append((images[0], masks[0] if masks else None))
    return found if any(masks for _, masks in found) else []


def _common(data: Path, masks: Path) -> Path:
    """Return the nearest folder that holds both, named as `data` is."""
    root = data
    while _steps(masks, root)[:1] == ("..",):
        root = root / ".." if root.name in ("", "..") else root.parent
    return root


def _steps(place: Path, root: Path) -> tuple[str, ...]:
    return Path(os.path.relpath(place, root)).parts


def _by_name(folder: Path, *, beside: Path | None) -> dict[str, Path]:
    """Return the images below a folder, by their path without the suffix; those below another one within it are none of them.

    Raises:
        ConfigError: Two have one name.
    """
    found: dict[str, Path] = {}
    for file in sorted(folder.rglob("*")):
        steps = file.relative_to(folder)
        if file.suffix.lower() not in SUFFIXES or not file.is_file() or any(step.startswith(".") for step in steps.parts):
            continue
        if beside is not None and beside != folder and beside.is_relative_to(folder) and file.is_relative_to(beside):
            continue
        name = steps.with_suffix("").as_posix()
        if name in found:
            given = f"{found[name]} and {file}"
            raise ConfigError(describe("two files have one name, so that their image or mask cannot be told", given=given, allowed="one", fix="remove one"))
        found[name] = file
    return found


def _image_of(mask: str, images: Iterable[str]) -> str:
    """Return the name of a mask's image: its own, or its own without a mark."""
    return next((mask.removesuffix(mark) for mark in MARKS if mask not in images and mask.removesuffix(mark) in images), mask)


def _part_of(image: Path, folder: Path, root: Path) -> int | None:
    """Return the part that an image is in: by the first folder in the folder of images, or by the one around it."""
    steps = image.relative_to(folder).parts
    named = [*steps[:-1][:1], *([folder.parent.name] if folder.parent != root else [])]
    return next((PARTS[name.lower()] for name in named if name.lower() in PARTS), None)


def _require_pairs(pairs: Sequence[Pair], images: Sequence[Path], masks: Sequence[Path]) -> None:
    if not pairs:
        given = f"{len(images)} images ({listed_few(images, 2) or 'none'}) and {len(masks)} masks ({listed_few(masks, 2) or 'none'})"
        raise ConfigError(describe("no image has a mask of its name", given=given, allowed=NAMED, fix="rename them, or name both folders: --data and --masks"))
    parts = {pair.part for pair in pairs}
    if None in parts and len(parts) > 1:
        outside = [pair.image for pair in pairs if pair.part is None]
        fix = "move them, or name one of the folders: --data and --masks"
        raise ConfigError(describe("some images lie in train, val or test, and others do not", given=listed_few(outside), allowed="all or none", fix=fix))
    if None not in parts and TRAIN not in parts:
        given = listed_few(pair.image for pair in pairs)
        raise ConfigError(describe("there are no images to train on", given=given, allowed="train, val and test", fix="put images into train/"))
