"""Drawn scenes: objects of six kinds that cover each other in part, on a ground with lines, under uneven light and noise.

One drawing gives a mask and tags. Two kinds each share a hue, so that they differ by their outline alone, and lines of the ground
may have it too. Size, turn, stripes, strength and brightness are drawn at random. Every scene depends on the seed and its own number alone.
"""

import colorsys
import math
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter

from bonsai.stages.data.registry import TEST, TRAIN, VALIDATION, LoadedImages

KINDS = ("disc", "ring", "box", "triangle", "cross", "star")
"""Kinds of objects; the first two are reddish, the next two greenish, the last two bluish."""
GROUND = "ground"
"""The first class of a mask: no object."""
CANVAS = 2  # scenes are drawn at twice the final size
VISIBLE = 12
"""Fewest pixels of a kind for its tag to be there."""


def load_scenes(
    *,
    targets: Literal["masks", "tags"] = "masks",
    height: int = 36,
    width: int = 48,
    train: int = 1000,
    validation: int = 200,
    test: int = 600,
    seed: int = 0,
) -> LoadedImages:
    """Draw the set: RGB images, each with one to five objects.

    Args:
        targets: ``masks``: (n, height, width), the ground and the kinds, for a segmentation; ``tags``: (n, kinds), 1 where at least `VISIBLE` pixels of a kind
            are to be seen, for several labels.
        height: Of the images, in pixels.
        width: Of the images, in pixels.
        train: Training images.
        validation: Validation images.
        test: Test images.
        seed: Seed of all random numbers.

    Raises:
        ValueError: `targets` is neither.
    """
    if targets not in ("masks", "tags"):
        raise ValueError(f"targets is masks or tags, not {targets!r}")
    numbers = [(part, index) for part, count in ((TRAIN, train), (VALIDATION, validation), (TEST, test)) for index in range(count)]
    scenes = [_draw(np.random.default_rng((seed, part, index)), height, width) for part, index in numbers]
    images = torch.from_numpy(np.stack([image for image, _ in scenes])).permute(0, 3, 1, 2).contiguous()
    masks = np.stack([mask for _, mask in scenes])
    parts, licence = torch.tensor([part for part, _ in numbers]), "drawn by Bonsai: free to use"
    if targets == "masks":
        return LoadedImages(images, torch.from_numpy(masks), (GROUND, *KINDS), licence, parts)
    return LoadedImages(images, torch.from_numpy(tags_of(masks)), KINDS, licence, parts)


def tags_of(masks: np.ndarray) -> np.ndarray:
    """Return which kinds are to be seen in masks (n, h, w): (n, kinds) float32 of 0 and 1."""
    pixels = (masks[..., None] == np.arange(1, len(KINDS) + 1)).sum((1, 2))
    return np.asarray(pixels >= VISIBLE, np.float32)


def _draw(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (h, w, 3) and its mask (h, w), both uint8."""
    size = (width * CANVAS, height * CANVAS)
    scene = _striped(rng, size, _colour(rng, hue=rng.random(), saturation=(0, 0.35)), contrast=0.15)
    mask = Image.new("L", size, 0)
    pen = ImageDraw.Draw(scene)
    for _ in range(rng.integers(2, 6)):  # lines belong to the ground
        ends = rng.uniform(0, 1, (2, 2)) * size
        pen.line([tuple(end) for end in ends], fill=_colour(rng, hue=rng.random(), saturation=(0, 0.9)), width=int(rng.integers(1, 5)))
    for _ in range(rng.integers(1, 6)):
        kind = int(rng.integers(len(KINDS)))
        shape = _shape(rng, KINDS[kind], size)
        colour = _colour(rng, hue=kind // 2 / 3 + rng.normal(0, 0.05), saturation=(0.35, 0.9))
        scene.paste(_striped(rng, size, colour, contrast=0.3), mask=shape)
        mask.paste(kind + 1, mask=shape)
    small = scene.resize((width, height), Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.8)))
    return _lit(rng, np.asarray(small) / 255), np.asarray(mask.resize((width, height), Image.Resampling.NEAREST))


def _shape(rng: np.random.Generator, kind: str, size: tuple[int, int]) -> Image.Image:
    """Return where an object is: 255 inside of its outline."""
    found = Image.new("L", size, 0)
    pen, radius = ImageDraw.Draw(found), rng.uniform(0.14, 0.32) * min(size)
    centre, turn = rng.uniform(0.08, 0.92, 2) * size, rng.uniform(0, 2 * math.pi)
    if kind in ("disc", "ring"):
        pen.circle(tuple(centre), radius, fill=255)
        if kind == "ring":
            pen.circle(tuple(centre), radius * rng.uniform(0.35, 0.6), fill=0)
        return found
    angles, radii = _outline(kind)
    stretch = rng.uniform(0.75, 1.0, 2)
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None] * radius * stretch
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    pen.polygon([tuple(point) for point in points @ rotation.T + centre], fill=255)
    return found


def _outline(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of a kind in polar coordinates: angles, and radii of which the largest is about 1."""
    if kind == "cross":
        x, y = np.array([[1, 0.33], [0.33, 0.33], [0.33, 1], [-0.33, 1], [-0.33, 0.33], [-1, 0.33]]).T
        x, y = np.concatenate([x, -x]), np.concatenate([y, -y])
        return np.arctan2(y, x), np.hypot(x, y)
    corners = {"box": 4, "triangle": 3, "star": 10}[kind]
    radii = np.where(np.arange(corners) % 2, 0.42, 1.0) if kind == "star" else np.ones(corners)
    return np.arange(corners) * 2 * math.pi / corners + math.pi / 4, radii


def _colour(rng: np.random.Generator, *, hue: float, saturation: tuple[float, float]) -> tuple[int, int, int]:
    """Return a colour of a hue, 0-1 from red over green and blue, and of random strength and brightness."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, rng.uniform(*saturation), rng.uniform(0.35, 0.9))
    return round(255 * red), round(255 * green), round(255 * blue)


def _striped(rng: np.random.Generator, size: tuple[int, int], colour: tuple[int, int, int], contrast: float) -> Image.Image:
    """Return an image of one colour with soft stripes of a random direction, width and strength."""
    across, down = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    turn, length = rng.uniform(0, math.pi), rng.uniform(4, 20)
    wave = np.sin((across * math.cos(turn) + down * math.sin(turn)) * 2 * math.pi / length) * rng.uniform(0, contrast)
    return Image.fromarray((np.array(colour) * (1 + wave[..., None])).clip(0, 255).astype(np.uint8))


def _lit(rng: np.random.Generator, scene: np.ndarray) -> np.ndarray:
    """Return a scene (h, w, 3) of 0 to 1 under light that changes across it, with noise, as uint8."""
    height, width, _ = scene.shape
    slope = rng.normal(0, 0.25, 2)
    light = rng.uniform(0.45, 1.1) * (1 + slope[0] * np.linspace(-1, 1, height)[:, None] + slope[1] * np.linspace(-1, 1, width))
    lit = scene * light[..., None] + rng.normal(0, rng.uniform(0.01, 0.07), scene.shape)
    return np.asarray((lit.clip(0, 1) * 255).round(), dtype=np.uint8)
