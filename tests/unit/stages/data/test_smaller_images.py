"""Images that are made smaller at the end of their preprocessing: to the bit the same in training, by torch, as in a package, by NumPy and Pillow."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from bonsai.stages.data import storing
from bonsai.stages.data.config import DataConfig
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.part import Part
from bonsai.stages.data.pixels import shrink
from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.data.registry import source_digest
from bonsai.stages.delivery.predict.samples import read_inputs
from bonsai.stages.steps.prepare import prepare
from bonsai.stages.steps.shrink import shrink as shrink_dataset
from bonsai.stages.store.artifact import fingerprint
from bonsai.stages.store.store import Store

FULL, SIZE, COUNT = (12, 10), (7, 6), 10
OPTIONS: dict[str, dict[str, object]] = {
    "photographs": {"size": FULL, "crop": 0.875, "resize": "crop", "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]},
    "deep": {"size": FULL, "channels": 1, "scale": 65535},
    "bytes": {},
    "fractions": {"scale": [-1.0, 1.0]},
}


def data(folder: Path, kind: str) -> tuple[DataConfig, list[Path]]:
    """Write samples of a kind, and return how they are loaded, with a file of each for a package."""
    rng, files = np.random.default_rng(0), []
    arrays = {"bytes": rng.integers(0, 256, (COUNT, 2, *FULL), np.uint8), "fractions": rng.uniform(-1, 1, (COUNT, 2, *FULL)).astype(np.float32)}.get(kind)
    for number in range(COUNT):
        if arrays is not None:
            files.append(folder / f"{number}.npy")
            np.save(files[-1], arrays[number])
            continue
        files.append(folder / "images" / "ab"[number % 2] / f"{number}.png")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 65536, (30, 25), np.uint16) if kind == "deep" else rng.integers(0, 256, (30, 25, 3), np.uint8)
        Image.fromarray(pixels).save(files[-1])
    if arrays is None:
        return DataConfig(name="image_folder", options={"root": str(folder / "images"), **OPTIONS[kind]}), files
    np.savez(folder / "all.npz", inputs=arrays, targets=np.arange(COUNT) % 2)
    return DataConfig(name="array", options={"root": str(folder / "all.npz"), "classes": ["a", "b"], **OPTIONS[kind]}), files


def prepared(folder: Path, config: DataConfig) -> tuple[Dataset, Dataset]:
    """Return a dataset in its full size, and smaller."""
    store = Store(folder / "store")
    full = store.run(prepare, data=config, content=source_digest(config))
    return full, store.run(shrink_dataset, dataset=full, size=SIZE)


@pytest.mark.parametrize("most_bytes", [0, 10**6])
@pytest.mark.parametrize("kind", OPTIONS)
def test_training_and_a_package_see_the_same_bits(kind: str, most_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "MOST_BYTES", most_bytes)
    config, files = data(tmp_path, kind)
    full, smaller = prepared(tmp_path, config)
    assert smaller.stored == full.stored == ("pixels" if most_bytes else "index")
    assert smaller.image_shape == (full.image_shape[0], *SIZE)
    manifest = SimpleNamespace(**json.loads(smaller.preprocess.model_dump_json()))
    packaged = {inputs.tobytes() for file in files for inputs in read_inputs(file, manifest)}
    trained = [inputs for part in full.sizes for inputs in Part(smaller, part).one_by_one()]
    assert {inputs.shape for inputs in trained} == {(1, *smaller.image_shape)}
    assert len(packaged) == COUNT
    assert {inputs.tobytes() for inputs in trained} == packaged


def test_a_batch_of_arrays_becomes_smaller_sample_by_sample(tmp_path: Path) -> None:
    config, files = data(tmp_path, "bytes")
    _, smaller = prepared(tmp_path, config)
    np.save(tmp_path / "batch.npy", np.stack([np.load(file) for file in files]).astype(np.int64))
    manifest = SimpleNamespace(**json.loads(smaller.preprocess.model_dump_json()))
    alone = [inputs for file in files for inputs in read_inputs(file, manifest)]
    assert np.array_equal(np.stack(read_inputs(tmp_path / "batch.npy", manifest)), np.stack(alone))


def test_targets_stay_and_the_parts_are_told_apart(tmp_path: Path) -> None:
    full, smaller = prepared(tmp_path, data(tmp_path, "photographs")[0])
    for part in full.sizes:
        assert np.array_equal(Part(full, part).targets, Part(smaller, part).targets)
        assert Part(full, part).digest != Part(smaller, part).digest
    assert fingerprint(full) != fingerprint(smaller)


def test_each_new_pixel_is_a_mean_over_all_that_it_covers() -> None:
    image = np.zeros((1, 4, 4), np.uint8)
    image[0, :2, :2] = 200
    halved = shrink(image, Preprocess.of((1, 4, 4)).at((2, 2)))
    whole = shrink(image, Preprocess.of((1, 4, 4)).at((1, 1)))
    assert halved[0, 0, 0] > 100 > halved[0, 0, 1] > halved[0, 1, 1]
    assert whole[0, 0, 0] == pytest.approx(50, abs=1)
    assert np.array_equal(shrink(image, Preprocess.of((1, 4, 4))), image)


def test_what_is_done_is_said_and_can_be_undone() -> None:
    full = Preprocess.of((3, 32, 48))
    smaller = full.at((16, 24))
    assert "made 32x48 first, then 16x24 by bilinear interpolation" in smaller.sentence
    assert smaller.whole == full
    assert smaller.at((8, 12)).whole == full


@pytest.mark.parametrize("shape", [(1, 16, 16), (1, 16)])
def test_images_are_never_made_larger_and_series_never_smaller(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match="`full` must be the height and width"):
        Preprocess.model_validate({**Preprocess.of(shape).model_dump(), "full": (8, 8)})
