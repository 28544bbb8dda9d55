import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_package import CLASSES, SHAPE, make_older, reseal
from typer.testing import CliRunner

from bonsai.pipeline.cli.main import app
from bonsai.profiles.loader import load_profile
from bonsai.stages.backends.registry import backend_of
from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.delivery.predict.engines import Refused
from bonsai.stages.delivery.predict.figure import compute
from bonsai.stages.delivery.predict.network import TEST_SAMPLES, mark_of, open_network
from bonsai.stages.delivery.predict.program import Asked, answer
from bonsai.stages.delivery.predict.samples import Columns, Sample, list_labelled
from bonsai.stages.tasks.predicting import READINGS

WITHOUT_BONSAI = """
import runpy, sys
sys.modules["bonsai"] = sys.modules["torch"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder of four images of each class."""
    numbers = np.random.default_rng(3)
    for name in CLASSES:
        (tmp_path / "images" / name).mkdir(parents=True)
        for place in range(4):
            Image.fromarray(numbers.integers(0, 256, SHAPE[1:], dtype=np.uint8)).save(tmp_path / "images" / name / f"{place}.png")
    return tmp_path / "images"


def predicted(package: Path, *files: Path, portable: bool = False) -> list[dict[str, object]]:
    """Return what the program prints as JSON."""
    done = CliRunner().invoke(app, ["predict", str(package), *map(str, files), "--json", *(["--portable"] if portable else [])])
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def refused(package: Path, *files: Path, check: Path | None = None, code: int, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the message that the program ends with."""
    assert answer(package, Asked(files, check)) == code
    return capsys.readouterr().err


def expected(package: Path, pixels: np.ndarray) -> tuple[str, float]:
    """Return class and probability by Bonsai's own backend, for pixels (1, 8, 8) uint8."""
    target = load_profile("local-cpu", {"target.precision": "fp32"}).target
    (output,) = backend_of(target).open_engine(package / "engine.onnx", target)((pixels[None].astype(np.float32) / 255 - 0.5) / 0.5)
    shares = np.exp(output.astype(np.float64) - output.max())
    return CLASSES[output.argmax()], float(shares.max() / shares.sum())


def test_an_image_an_array_and_a_table_give_one_prediction(package: Path, images: Path, tmp_path: Path) -> None:
    file = images / CLASSES[0] / "0.png"
    pixels = np.asarray(Image.open(file))[None]
    np.save(tmp_path / "one.npy", pixels)
    np.save(tmp_path / "two.npy", np.stack([pixels, 255 - pixels]))
    (tmp_path / "table.csv").write_text("path,label\none.npy,circle\n")
    alone, one, first, second, told = predicted(package, file, *(tmp_path / name for name in ("one.npy", "two.npy", "table.csv")))
    name, probability = expected(package, pixels)
    assert alone == {"file": str(file), "sample": 0, "class": name, "probability": pytest.approx(probability)}
    assert one["probability"] == first["probability"] == told["probability"] == alone["probability"]
    assert (second["sample"], second["class"]) == (1, expected(package, 255 - pixels)[0])
    assert (told["label"], told["file"]) == ("circle", str(tmp_path / "one.npy"))


def test_a_line_has_file_class_and_probability(package: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = images / CLASSES[0] / "0.png"
    assert answer(package, Asked([file])) == 0
    name, probability = expected(package, np.asarray(Image.open(file))[None])
    assert capsys.readouterr().out == f"{file}: {name}  {probability:.2%}\n"


def test_the_program_opens_the_engine_as_bonsai_does(package: Path) -> None:
    inputs = np.random.default_rng(5).standard_normal((7, *SHAPE)).astype(np.float32)
    target = load_profile("local-cpu", {"target.precision": "fp32"}).target
    assert np.array_equal(open_network(package).run(inputs), backend_of(target).open_engine(package / "engine.onnx", target)(inputs))
    assert np.allclose(open_network(package, portable=True).run(inputs), open_network(package).run(inputs), atol=1e-5)


def test_the_package_s_own_program_needs_no_bonsai(package: Path, images: Path) -> None:
    file = images / CLASSES[1] / "2.png"
    command = [sys.executable, "-c", WITHOUT_BONSAI, str(package / "predict.py"), "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=images)
    assert [json.loads(line) for line in done.stdout.splitlines()] == predicted(package, file)
    assert sorted(path.name for path in package.iterdir() if path.is_dir()) == []


def claim(package: Path, figure: float, inputs: np.ndarray, labels: np.ndarray) -> None:
    """Let a package say that it has this figure on these samples."""
    (package / TEST_SAMPLES).write_text("".join(f"{mark_of(*pair)}\n" for pair in zip(inputs, labels, strict=True)))
    reseal(package, lambda facts: facts["metrics"][-1]["accuracy"].update(top1=figure))  # type: ignore[index]


def test_the_package_s_test_samples_are_found_in_a_folder_and_their_figure_is_computed_again(
    package: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs, labels, right = [], [], []
    for name, place in ((CLASSES[2], 3), (CLASSES[0], 1), (CLASSES[1], 0), (CLASSES[0], 0)):
        pixels = np.asarray(Image.open(images / name / f"{place}.png"))[None]
        inputs.append((pixels.astype(np.float32) / 255 - 0.5) / 0.5)
        labels.append(CLASSES.index(name))
        right.append(expected(package, pixels)[0] == name)
    figure = float(np.mean(right))
    claim(package, figure, np.stack(inputs), np.array(labels))
    assert answer(package, Asked(check=images)) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"top-1 {figure:.2%} ({figure!r}) on 4 of 12 samples, by engine\n")
    assert said.endswith("these are its test samples; the figures are equal\n")
    claim(package, figure + 0.01, np.stack(inputs), np.array(labels))
    assert answer(package, Asked(check=images)) == 6
    (images / CLASSES[2] / "3.png").unlink()
    assert answer(package, Asked(check=images, as_json=True)) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["samples"], found["given"], found["test_part"]) == (11, 11, False)


def test_a_table_with_labels_is_checked_like_the_folder(package: Path, images: Path) -> None:
    rows = [f"{file.relative_to(images.parent)};{file.parent.name}" for name in CLASSES for file in sorted((images / name).iterdir())]
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in row.split(";")) for row in rows]
    (images.parent / "test.csv").write_text("\n".join(["path,label", *quoted]) + "\n")
    network = open_network(package)
    assert compute(network, list_labelled(images.parent / "test.csv", CLASSES, Columns())) == compute(network, list_labelled(images, CLASSES, Columns()))


def test_of_a_table_and_of_a_folder_with_parts_the_test_part_is_checked(images: Path, tmp_path: Path) -> None:
    images.rename(tmp_path / "test")
    found = list_labelled(tmp_path, CLASSES, Columns())
    assert len(found) == 12
    table = tmp_path / "all.csv"
    rows = "".join(f'"{sample.path.relative_to(tmp_path)}";{place % 3};{"Test" if place < 2 else "train"}\n' for place, sample in enumerate(found)).replace(
        '"s"', '""s""'
    )
    table.write_text("file;kind;part\n" + rows)
    options = {"path": "file", "label": "kind", "split": "part", "delimiter": ";", "size": 8}
    columns = Columns.of({"recipe": {"data": {"name": "csv", "options": options}}})
    assert [(sample.path, sample.cells["label"]) for sample in list_labelled(table, CLASSES, columns)] == [(found[0].path, "0"), (found[1].path, "1")]


def test_a_mask_with_a_class_that_the_package_lacks_is_refused(tmp_path: Path) -> None:
    for name, value in (("image", 9), ("mask", 2)):
        Image.new("L", (6, 4), value).save(tmp_path / f"{name}.png")
    manifest = {"classes": ["road", "tree"], "recipe": {}}
    network: Any = SimpleNamespace(reading=READINGS["segmentation"], preprocess=Preprocess.of((1, 4, 6)), manifest=manifest, test_samples=())
    with pytest.raises(Refused, match=r"image\.png: no target\n.*class 2 in a mask; the package has 2 classes from 0"):
        compute(network, [Sample(tmp_path / "image.png", {"mask": str(tmp_path / "mask.png")})])


@pytest.mark.parametrize("name", ["engine.onnx", "manifest.json"])
def test_a_changed_file_is_refused_before_it_is_used(package: Path, images: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (package / name).write_bytes((package / name).read_bytes() + b" ")
    assert f"error: {name}: the file was changed\n" in refused(package, images / CLASSES[0] / "0.png", code=6, capsys=capsys)


def test_a_folder_without_sums_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "error: SHA256SUMS: cannot be read\n" in refused(tmp_path, tmp_path / "a.png", code=6, capsys=capsys)


def test_files_that_cannot_be_read_are_named(package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "no.png").write_text("no image")
    (tmp_path / "no.csv").write_text("file\nx\n")
    np.save(tmp_path / "wide.npy", np.zeros((1, 8, 9), np.uint8))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    for name in ("no.png", "wide.npy", "objects.npy", "absent.jpg"):
        assert f"error: {tmp_path / name}: cannot be read\n" in refused(package, tmp_path / name, code=2, capsys=capsys)
    assert "no column `path`" in refused(package, tmp_path / "no.csv", code=2, capsys=capsys)


def test_a_folder_with_another_class_is_not_checked(package: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (images / "triangle").mkdir()
    message = refused(package, check=images, code=2, capsys=capsys)
    assert "given:   triangle\n" in message
    shutil.rmtree(images)
    images.mkdir()
    assert f"given:   {images}\n" in refused(package, check=images, code=2, capsys=capsys)


def test_a_runtime_that_is_not_there_is_named(package: Path, images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    message = refused(package, images / CLASSES[0] / "0.png", code=5, capsys=capsys)
    assert "the runtime onnxruntime cannot be imported" in message
    assert "pip install 'onnxruntime==1." in message


def test_a_task_of_the_user_s_own_is_printed_and_not_checked(package: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = [{"name": "best", "shape": [1, 1]}, {"name": "others", "shape": [2]}]
    reseal(package, lambda facts: (facts["recipe"].update(task="my_tasks:Ranking"), facts.update(outputs=outputs)))  # type: ignore[attr-defined]
    (found,) = predicted(package, images / CLASSES[0] / "0.png")
    assert (np.shape(found["best"]), np.shape(found["others"])) == ((1, 1), (2,))
    assert "the package's task is the user's own" in refused(package, check=images, code=2, capsys=capsys)


def test_a_package_of_an_earlier_version_is_told(package: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_older(package)
    assert "manifest.json: no `preprocess`" in refused(package, images / CLASSES[0] / "0.png", code=2, capsys=capsys)


def test_the_command_asks_for_files_or_a_folder(package: Path) -> None:
    done = CliRunner().invoke(app, ["predict", str(package)])
    assert "nothing to predict, or two things" in str(done.exception)
