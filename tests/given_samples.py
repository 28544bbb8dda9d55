"""Small pictures as files, and the samples that a loader returns."""

from pathlib import Path

from PIL import Image

from bonsai.stages.data.checking import check_loaded
from bonsai.stages.data.storing import Pixels, hold


def picture(file: Path, colour: int, mode: str = "L", size: tuple[int, int] = (6, 4)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (colour,) * 3 if mode == "RGB" else colour).save(file)


def pixels(loaded: object) -> Pixels:
    checked = check_loaded(loaded, "mine")
    held = hold(checked)
    assert isinstance(held, Pixels)
    return held
