"""From files to inputs: what training, measurement and a package on its device do alike."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from bonsai.stages.data import pixels
from bonsai.stages.data.inputs import to_inputs
from bonsai.stages.data.pixels import array_type, read_array, read_image, read_mask, to_input
from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.tasks.task import DataSpec

RED, ORIENTATION, CLOCKWISE = (255, 0, 0), 0x0112, 6


def preprocess(channels: int = 3, size: tuple[int, ...] = (4, 4), **more: object) -> Preprocess:
    return Preprocess.model_validate({**Preprocess.of((channels, *size)).model_dump(), **more})


def put(file: Path, image: Image.Image, **how: object) -> Path:
    image.save(file, **how)
    return file


def pixel(file: Path, channels: int = 3, **more: object) -> list[float]:
    return read_image(file, preprocess(channels, **more))[:, 1, 1].tolist()


def photo(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def test_transparent_pixels_become_white(tmp_path: Path) -> None:
    assert pixel(put(tmp_path / "a.png", Image.new("RGBA", (8, 8), (0, 0, 0, 0)))) == [255, 255, 255]
    palette = Image.new("P", (8, 8), 3)
    palette.putpalette([0, 0, 0] * 256)
    assert pixel(put(tmp_path / "b.png", palette, transparency=3)) == [255, 255, 255]


def test_alpha_is_a_channel_of_its_own_where_there_are_four(tmp_path: Path) -> None:
    assert pixel(put(tmp_path / "a.png", Image.new("RGBA", (8, 8), (10, 20, 30, 40))), channels=4) == pytest.approx([10, 20, 30, 40], abs=3)
    assert pixel(put(tmp_path / "b.png", Image.new("RGB", (8, 8), RED)), channels=4) == [255, 0, 0, 255]
    assert pixel(put(tmp_path / "c.jpg", Image.new("CMYK", (8, 8))), channels=4)[3] == 255


def test_palettes_and_grey_become_colour(tmp_path: Path) -> None:
    assert pixel(put(tmp_path / "a.gif", Image.new("RGB", (8, 8), RED).quantize(4))) == [255, 0, 0]
    assert pixel(put(tmp_path / "b.png", Image.new("L", (8, 8), 100))) == [100, 100, 100]


def test_an_image_file_has_no_five_channels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not as \(5, 4, 4\); read such data from \.npy files"):
        pixel(put(tmp_path / "a.png", Image.new("L", (8, 8))), channels=5)


def test_an_image_is_turned_as_its_exif_tag_says(tmp_path: Path) -> None:
    image = Image.new("L", (8, 8), 0)
    image.paste(255, (0, 0, 8, 4))  # the upper half is white: turned, it is on the right
    exif = Image.Exif()
    exif[ORIENTATION] = CLOCKWISE
    found = read_image(put(tmp_path / "a.png", image, exif=exif), preprocess(1, (8, 8)))[0]
    assert found[:, 5:].min() == 255
    assert found[:, :3].max() == 0


def test_a_file_that_is_open_is_read_as_one_by_path(tmp_path: Path) -> None:
    file = put(tmp_path / "a.png", photo(9, 7))
    assert np.array_equal(read_image(io.BytesIO(file.read_bytes()), preprocess()), read_image(file, preprocess()))


def test_sixteen_bits_are_scaled_to_eight_by_the_known_white(tmp_path: Path) -> None:
    file = put(tmp_path / "a.png", Image.fromarray(np.full((8, 8), 0x8000, np.uint16)))
    assert pixel(file, 1, deep={"grey": 65535}) == [127]
    assert pixel(file, 3, deep={"grey": 65535}) == [127, 127, 127]


def test_sixteen_bits_are_refused_where_white_is_not_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="more than 8 bits, and it is not known which value stands for white"):
        pixel(put(tmp_path / "a.png", Image.fromarray(np.full((8, 8), 9, np.uint16))), 1)


def test_sixteen_bits_are_kept_where_the_scale_has_as_many(tmp_path: Path) -> None:
    file = put(tmp_path / "a.png", Image.fromarray(np.full((8, 8), 4000, np.uint16)))
    kept = read_image(file, preprocess(1, scale=4095))
    assert kept.dtype == np.uint16
    assert kept[0, 1, 1] == 4000
    assert to_input(kept, preprocess(1, scale=4095))[0, 1, 1] == pytest.approx((4000 / 4095 - 0.5) / 0.5)


def test_images_of_eight_bits_beside_deeper_ones_are_scaled_from_black_to_white(tmp_path: Path) -> None:
    file = put(tmp_path / "a.png", Image.new("RGB", (8, 8), (255, 51, 0)))
    assert pixel(file, scale=65535) == [65535, 13107, 0]
    assert pixel(file, scale=(-1, 1)) == pytest.approx([1, -0.6, -1])


def test_fractions_are_kept_within_a_stated_range(tmp_path: Path) -> None:
    file = put(tmp_path / "a.tiff", Image.fromarray(np.full((8, 8), -0.25, np.float32)))
    assert pixel(file, 1, scale=(-0.5, 0.5)) == [-0.25]


@pytest.mark.parametrize(("width", "height"), [(300, 200), (201, 333), (224, 224), (50, 61), (1000, 37)])
@pytest.mark.parametrize(("resized", "size"), [(256, 224), (232, 224), (40, 32)])
@pytest.mark.parametrize("how", ["bilinear", "bicubic", "nearest"])
def test_a_centre_crop_has_the_pixels_of_torchvisions(width: int, height: int, resized: int, size: int, how: str, tmp_path: Path) -> None:
    file = put(tmp_path / "a.png", photo(width, height))
    theirs = v2.Compose([v2.Resize(resized, interpolation=v2.InterpolationMode(how)), v2.CenterCrop(size)])(Image.open(file))
    ours = read_image(file, preprocess(size=(size, size), resize="crop", crop=size / resized, interpolation=how))
    assert np.array_equal(ours, np.asarray(theirs).transpose(2, 0, 1))


def test_a_crop_covers_a_size_that_is_not_square(tmp_path: Path) -> None:
    image = Image.new("L", (40, 40), 0)
    image.paste(255, (0, 8, 40, 32))  # a band in the middle
    found = read_image(put(tmp_path / "a.png", image), preprocess(1, (10, 20), resize="crop"))
    assert found.shape == (1, 10, 20)
    assert found.min() == 255


def test_padding_keeps_the_aspect_ratio_with_black_around_it(tmp_path: Path) -> None:
    found = read_image(put(tmp_path / "a.png", Image.new("RGB", (40, 20), RED)), preprocess(size=(8, 8), resize="pad"))
    assert found[:, 0, 0].tolist() == [0, 0, 0]
    assert found[0, :, 4].tolist() == [0, 0, 255, 255, 255, 255, 0, 0]


def test_a_mask_follows_its_image_and_padding_does_not_count(tmp_path: Path) -> None:
    indices = np.zeros((20, 40), np.uint8)
    indices[:, 20:] = 7
    palette = Image.fromarray(indices).convert("P")
    for image in (Image.fromarray(indices), palette):
        found = read_mask(put(tmp_path / "a.png", image), preprocess(size=(8, 8), resize="pad", interpolation="bicubic"))
        assert found[0].tolist() == [255] * 8
        assert found[4].tolist() == [0, 0, 0, 0, 7, 7, 7, 7]


def test_a_mask_of_colours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a mask of mode RGB"):
        read_mask(put(tmp_path / "a.png", Image.new("RGB", (8, 8))), preprocess())


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_numpys_inputs_are_torchs_to_the_bit(channels: int) -> None:
    how = preprocess(channels, (16, 16), mean=(0.485, 0.456, 0.406, 0.5)[:channels], std=(0.229, 0.224, 0.225, 0.5)[:channels])
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).repeat(2, channels, 1, 1)
    ours = to_input(images.numpy(), how)
    assert ours.dtype == np.float32
    assert np.array_equal(ours, to_inputs(images, DataSpec(how.image_shape, 2, how)).numpy())
    assert np.array_equal(to_input(images[0].numpy(), how), ours[0])


@pytest.mark.parametrize(
    ("scale", "kind", "value", "expected"),
    [(255, np.uint8, 51, -0.6), (65535, np.uint16, 65535, 1), ((0, 1), np.float32, 0.25, -0.5), ((-2, 2), np.float32, 0, 0)],
)
def test_values_are_scaled_from_black_to_white(scale: object, kind: type, value: float, expected: float) -> None:
    how = preprocess(1, scale=scale)
    assert array_type(how) == kind
    assert to_input(np.full((1, 4, 4), value, kind), how) == pytest.approx(expected)


def test_a_series_has_channels_and_a_length() -> None:
    how = preprocess(2, (5,), mean=(0, 0.5), std=(1, 0.5), scale=(0, 10))
    series = np.tile(np.float32([0, 2, 5, 8, 10]), (2, 1))
    assert how.image_shape == (2, 5)
    assert to_input(series, how)[1] == pytest.approx([-1, -0.6, 0, 0.6, 1])
    assert to_input(series[None].repeat(3, 0), how).shape == (3, 2, 5)
    assert how.sentence == "(values - 0) / 10, minus (0.0, 0.5), over (1.0, 0.5)"


def test_an_array_is_read_in_the_type_of_its_scale(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((2, 5), 7, np.int16))
    found = read_array(tmp_path / "a.npy", preprocess(2, (5,), scale=4095))
    assert (found.dtype, found.tolist()) == (np.uint16, [[7] * 5] * 2)
    with pytest.raises(ValueError, match=r"int16 \(2, 5\); the network takes numbers of shape \(2, 6\)"):
        read_array(tmp_path / "a.npy", preprocess(2, (6,)))


@pytest.mark.parametrize("shape", [(3, 4, 5), (4, 4), (4, 4, 3), (1, 1, 3, 4, 4)])
def test_an_array_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"the network takes \(3, 4, 4\), or a batch of it"):
        to_input(np.zeros(shape, np.uint8), preprocess())


def test_the_file_needs_numpy_and_pillow_alone_and_takes_what_json_holds(tmp_path: Path) -> None:
    how = preprocess(1, (2, 2), resize="pad")
    file = put(tmp_path / "a.png", Image.new("L", (2, 2), 255))
    (tmp_path / "preprocess.json").write_text(how.model_dump_json())
    (tmp_path / "pixels.py").write_bytes(Path(pixels.__file__).read_bytes())
    program = (
        "import json, sys, types, pixels\n"
        "how = types.SimpleNamespace(**json.load(open('preprocess.json')))\n"
        "assert not {'torch', 'pydantic', 'bonsai'} & set(sys.modules)\n"
        f"print(pixels.to_input(pixels.read_image({file.name!r}, how), how).tolist())"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True, env={"PYTHONPATH": ""})
    assert ran.stdout.strip() == "[[[1.0, 1.0], [1.0, 1.0]]]"
