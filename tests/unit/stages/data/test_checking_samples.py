"""Every sample of a set is made once before training, and its mask is compared with its image."""

from pathlib import Path

import numpy as np
import pytest
from given_samples import picture
from PIL import Image
from torch.utils.data import Dataset as Samples

from bonsai.profiles.errors import ConfigError
from bonsai.stages.data import storing
from bonsai.stages.data.checking_samples import check_samples
from bonsai.stages.data.config import DataConfig
from bonsai.stages.data.dataset import Dataset as Prepared
from bonsai.stages.data.files import upright_size
from bonsai.stages.data.pixels import ORIENTATION
from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.data.registry import LoadedSamples, source_digest
from bonsai.stages.steps.prepare import prepare
from bonsai.stages.store.store import Store


def masked(folder: Path, *, most_bytes: int, monkeypatch: pytest.MonkeyPatch, count: int = 40) -> Prepared:
    """Prepare images with masks of two classes; what lies there already stays."""
    for number in range(count):
        for place, colour in (("images", number), ("masks", number % 2)):
            if not (folder / place / f"{number}.png").exists():
                picture(folder / place / f"{number}.png", colour)
    rows = [f"images/{number}.png,masks/{number}.png" for number in range(count)]
    (folder / "labels.csv").write_text("\n".join(["path,mask", *rows]))
    data = DataConfig(name="csv", options={"root": str(folder), "mask": "mask", "classes": ["road", "tree"], "size": [4, 6], "channels": 1})
    monkeypatch.setattr(storing, "MOST_BYTES", most_bytes)
    return Store(folder.parent / "store").run(prepare, data=data, content=source_digest(data), task="segmentation")


@pytest.mark.parametrize("most_bytes", [0, 10**6])
@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (Image.new("L", (6, 4), 7), "masks name classes that are not there"),
        (Image.new("RGB", (6, 4)), "a mask of mode RGB"),
        (Image.new("L", (4, 6)), "a mask of 4x6 pixels for an image of 6x4; both must have the same proportions"),
    ],
    ids=["value", "colours", "proportions"],
)
def test_every_mask_is_checked_before_training(mask: Image.Image, told: str, most_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set" / "masks").mkdir(parents=True)
    for number in (23, 38):
        mask.save(tmp_path / "set" / "masks" / f"{number}.png")
    with pytest.raises(ConfigError, match=f"(?s)dataset 'csv'.*{told}|2 of 40 files.*{told}") as refusal:
        masked(tmp_path / "set", most_bytes=most_bytes, monkeypatch=monkeypatch)
    if not most_bytes:
        assert "2 of 40 samples cannot be used: images/23.png, images/38.png. The first: " in str(refusal.value)


def test_a_mask_may_be_smaller_than_its_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "set" / "masks" / "5.png", 1, size=(3, 2))
    turned = Image.new("L", (4, 6))
    turned.getexif()[ORIENTATION] = 6
    turned.save(tmp_path / "set" / "masks" / "6.png", exif=turned.getexif())
    assert masked(tmp_path / "set", most_bytes=0, monkeypatch=monkeypatch).stored == "index"


def test_every_image_of_a_large_set_is_read_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masked(tmp_path / "set", most_bytes=0, monkeypatch=monkeypatch)
    whole = (tmp_path / "set" / "images" / "39.png").read_bytes()
    (tmp_path / "set" / "images" / "39.png").write_bytes(whole[:-25])  # its head is intact
    with pytest.raises(ConfigError, match=r"(?s)1 of 40 samples cannot be used: images/39\.png\. The first: a sample cannot be read"):
        masked(tmp_path / "set", most_bytes=0, monkeypatch=monkeypatch)


def test_every_array_of_a_large_set_is_checked_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = np.zeros((40, 1, 8), np.float32)
    inputs[31, 0, 3] = np.nan
    np.savez(tmp_path / "a.npz", inputs=inputs, targets=np.arange(40) % 2)
    data = DataConfig(name="array", options={"root": str(tmp_path / "a.npz"), "classes": ["x", "y"], "scale": [-1, 1]})
    monkeypatch.setattr(storing, "MOST_BYTES", 0)
    with pytest.raises(ConfigError, match=r"(?s)1 of 40 samples cannot be used: sample 31.*values from nan to nan"):
        Store(tmp_path / "store").run(prepare, data=data, content=source_digest(data))


@pytest.mark.parametrize(("tag", "size"), [(1, (6, 4)), (4, (6, 4)), (5, (4, 6)), (8, (4, 6)), (9, (6, 4))])
def test_an_image_has_the_size_that_it_has_upright(tag: int, size: tuple[int, int]) -> None:
    image = Image.new("L", (6, 4))
    image.getexif()[ORIENTATION] = tag
    assert upright_size(image) == size


class BrokenOnce(Samples[tuple[np.ndarray, int]]):
    """Sample 23 cannot be made while a file is there, which the first try removes."""

    def __init__(self, obstacle: Path) -> None:
        self._obstacle = obstacle

    def __len__(self) -> int:
        return 40

    def __getitem__(self, number: int) -> tuple[np.ndarray, int]:
        if number == 23 and self._obstacle.exists():
            self._obstacle.unlink()
            raise OSError("not now")
        return np.zeros((1, 4, 4), np.uint8), number % 2


def test_a_sample_that_can_be_made_at_the_second_try_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "obstacle").touch()
    loaded = LoadedSamples(BrokenOnce(tmp_path / "obstacle"), np.arange(40) % 2, ("a", "b"), "own", Preprocess.of((1, 4, 4)))
    with pytest.raises(ConfigError, match=r"(?s)could not be made at first, and could when it was tried again.*sample 23"):
        check_samples(loaded, lambda targets: targets)
    check_samples(loaded, lambda targets: targets)
