"""Files that the user's own code reads: declared, their contents are part of the input; undeclared, they are warned of."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hard_networks import Plain

from bonsai.pipeline.recipes.recipe import load_recipe
from bonsai.profiles.errors import ConfigError
from bonsai.stages.data.config import DataConfig
from bonsai.stages.data.loading import load_data
from bonsai.stages.data.registry import source_digest
from bonsai.stages.imports.declared import FOLDERS
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.registry import build_network
from bonsai.stages.store.artifact import fingerprint

SHAPE = (3, 12, 12)
FACTORY = """
import torch
from hard_networks import Plain

def build(in_channels, num_classes, file="weights.pth"):
    network = Plain(in_channels, num_classes)
    network.load_state_dict(torch.load(file, weights_only=True))
    return network
"""
LOADER = """
from pathlib import Path

import torch
from bonsai.stages.data.registry import LoadedImages

def load(table, root=""):
    lines = Path(table).read_text().split()
    for file in sorted(Path(root).glob("*")) if root else []:
        file.read_bytes()
    return LoadedImages(torch.full((len(lines), 1, 8, 8), 9, dtype=torch.uint8), torch.tensor([int(line) for line in lines]), ("a", "b"), "free")
"""
RECIPE = """
name: mine
description: a test
model: {{name: "{module}:build", options: {{file: weights.pth}}{files}}}
data: {{name: digits, options: {{size: 16}}}}
"""


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDERS, "")


def project(folder: Path, *, declared: bool = True) -> Path:
    """Write a recipe, a factory that reads weights, and weights; return the recipe's file."""
    folder.mkdir()
    module = f"reader_{abs(hash(str(folder)))}"
    (folder / f"{module}.py").write_text(FACTORY)
    write_weights(folder / "weights.pth", 0)
    (folder / "recipe.yaml").write_text(RECIPE.format(module=module, files=", files: [weights.pth]" if declared else ""))
    return folder / "recipe.yaml"


def write_weights(file: Path, seed: int) -> None:
    torch.manual_seed(seed)
    torch.save(Plain(3, 10).state_dict(), file)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("warning: ")]


def test_other_contents_of_a_declared_file_are_another_input_and_another_time_is_not(tmp_path: Path) -> None:
    recipe = project(tmp_path / "project")
    before, weights = fingerprint(load_recipe(str(recipe)).model), tmp_path / "project" / "weights.pth"
    os.utime(weights, (1, 1))
    assert fingerprint(load_recipe(str(recipe)).model) == before
    write_weights(weights, 1)
    os.utime(weights, (1, 1))
    assert fingerprint(load_recipe(str(recipe)).model) != before


def test_where_a_project_lies_is_no_part_of_the_input(tmp_path: Path) -> None:
    recipe = project(tmp_path / "project")
    before = fingerprint(load_recipe(str(recipe)).model)
    moved = recipe.parent.rename(tmp_path / "moved")
    after = load_recipe(str(moved / "recipe.yaml")).model
    assert fingerprint(after) == before


def test_an_option_that_is_a_declared_file_leads_to_the_recipes_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_recipe(str(project(tmp_path / "project"))).model
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    state = build_network(ModelConfig.model_validate_json(model.model_dump_json()), SHAPE, 10).state_dict()
    expected = torch.load(tmp_path / "project" / "weights.pth", weights_only=True)
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_a_child_process_finds_the_declared_files_too(tmp_path: Path) -> None:
    model = load_recipe(str(project(tmp_path / "project"))).model
    (tmp_path / "elsewhere").mkdir()
    code = "import sys; from bonsai.stages.networks.config import ModelConfig; from bonsai.stages.networks.registry import build_network as build\n"
    code += "print(float(build(ModelConfig.model_validate_json(sys.argv[1]), (3, 12, 12), 10).fc.weight.sum()))"
    root = Path(__file__).parents[4]
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root / 'tests'}"}
    command = [sys.executable, "-c", code, model.model_dump_json()]
    done = subprocess.run(command, cwd=tmp_path / "elsewhere", env=environment, capture_output=True, text=True, check=False)
    expected = torch.load(tmp_path / "project" / "weights.pth", weights_only=True)["fc.weight"].sum()
    assert done.stdout.strip() == str(float(expected)), done.stderr


def test_a_network_is_not_rebuilt_from_files_that_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_recipe(str(project(tmp_path / "project"))).model
    monkeypatch.setenv(FOLDERS, "")  # as in another process, which loaded no recipe
    monkeypatch.chdir(tmp_path / "project")
    build_network(model, SHAPE, 10)
    write_weights(tmp_path / "project" / "weights.pth", 1)
    with pytest.raises(ConfigError, match=r"(?s)model.files: these files have changed since.*weights.pth, looked for in .*project"):
        build_network(model, SHAPE, 10)


def test_a_declared_file_that_is_not_there_is_refused_with_the_folder(tmp_path: Path) -> None:
    recipe = project(tmp_path / "project")
    (recipe.parent / "weights.pth").unlink()
    with pytest.raises(ConfigError, match=rf"(?s)model.files: no such file.*weights.pth, looked for in {recipe.parent}"):
        load_recipe(str(recipe))


def test_the_digest_is_no_key_that_a_recipe_may_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'model\.content'"):
        load_recipe(str(project(tmp_path / "project")), {"model.content": "0"})


def test_a_config_without_declared_files_keeps_its_identity() -> None:
    assert ModelConfig(name="resnet8").identity() == '{"name":"resnet8","options":{},"seed":0}'
    assert DataConfig(name="digits").identity() == '{"name":"digits","options":{},"validation":0.15,"test":0.25,"seed":0}'


@pytest.mark.parametrize("entry", ["tables", "tables/*.csv", "tables/**/*.csv", "tables/a.csv"])
def test_folders_and_patterns_are_declared_by_content(entry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tables").mkdir()
    file = tmp_path / "tables" / "a.csv"
    file.write_text("0 1")
    before = DataConfig(name="digits", files=(entry,)).identity()
    file.write_text("1 0")
    assert DataConfig(name="digits", files=(entry,)).identity() != before


def test_two_declared_files_that_change_places_are_another_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").write_text("one")
    (tmp_path / "b").write_text("two")
    before = DataConfig(name="digits", files=("a", "b")).identity(), DataConfig(name="digits", files=("?",)).identity()
    (tmp_path / "a").write_text("two")
    (tmp_path / "b").write_text("one")
    after = DataConfig(name="digits", files=("a", "b")).identity(), DataConfig(name="digits", files=("?",)).identity()
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_a_file_that_the_factory_reads_undeclared_is_warned_of_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    recipe = project(tmp_path / "project", declared=False)
    monkeypatch.chdir(recipe.parent)
    model = load_recipe(str(recipe)).model
    build_network(model, SHAPE, 10)
    build_network(model, SHAPE, 10)
    (warning,) = warnings_of(caplog)
    assert warning == f"warning: {model.name} reads weights.pth, not declared under model.files: a change of its contents is not noticed"


def test_a_declared_file_is_not_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    build_network(load_recipe(str(project(tmp_path / "project"))).model, SHAPE, 10)
    assert warnings_of(caplog) == []


def test_a_loaders_own_file_is_warned_of_and_the_root_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stranger_loader.py").write_text(LOADER)
    (tmp_path / "labels.txt").write_text("0 1 0")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.bin").write_bytes(b"a")
    options = {"table": "labels.txt", "root": "images"}
    load_data(DataConfig(name="stranger_loader:load", options=options, files=("labels.txt",)))
    assert warnings_of(caplog) == []
    load_data(DataConfig(name="stranger_loader:load", options=options))
    (warning,) = warnings_of(caplog)
    assert "stranger_loader:load reads labels.txt, not declared under data.files" in warning


def test_code_packages_and_what_the_code_wrote_itself_are_not_warned_of(tmp_path: Path) -> None:
    code = """
import json, sys
from pathlib import Path
from bonsai.stages.imports.reading import warning_of_undeclared
from bonsai.stages.training.progress import logger
import logging
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
with warning_of_undeclared("mine:load", "data.files", [Path("declared")]):
    import sibling, decimal, zoneinfo
    zoneinfo.ZoneInfo("UTC")
    Path("scratch.txt").write_text("a")
    Path("scratch.txt").read_text()
    open("declared/a").read()
    Path(sys.modules["torch"].__file__ if "torch" in sys.modules else json.__file__).read_text()
    Path.home().joinpath(".cache", "model.bin").read_bytes()
    open(sys.argv[1]).read()
"""
    for file in ("sibling.py", "declared/a", "home/.cache/model.bin", "given.txt"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("")
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "PYTHONPATH": f"{Path(__file__).parents[4] / 'src'}{os.pathsep}{tmp_path}"}
    done = subprocess.run([sys.executable, "-c", code, "given.txt"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    expected = "warning: mine:load reads given.txt, not declared under data.files: a change of its contents is not noticed"
    assert done.stdout.splitlines() == [expected], done.stderr


def test_a_file_that_is_not_there_is_told_with_the_folder_it_was_looked_for_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_recipe(str(project(tmp_path / "project", declared=False))).model
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=rf"'weights.pth', looked for in {tmp_path}/elsewhere \(reader_\d+.py, line 7\)"):
        build_network(model, SHAPE, 10)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "stranger_reader.py").write_text(LOADER)
    with pytest.raises(ConfigError, match=rf"'labels.txt', looked for in {tmp_path}/elsewhere \(stranger_reader.py, line 8\)"):
        load_data(DataConfig(name="stranger_reader:load", options={"table": "labels.txt"}))


def test_images_that_change_places_are_another_input_and_a_touch_is_not(tmp_path: Path) -> None:
    files = [tmp_path / name / "1.png" for name in ("cat", "dog")]
    for file, content in zip(files, (b"one", b"two"), strict=True):
        file.parent.mkdir()
        file.write_bytes(content)
        os.utime(file, (1, 1))
    data = DataConfig(name="image_folder", options={"root": str(tmp_path)})
    before = source_digest(data)
    os.utime(files[0], (5, 5))
    (tmp_path / ".DS_Store").touch()
    assert source_digest(data) == before
    for file, content in zip(files, (b"two", b"one"), strict=True):
        file.write_bytes(content)
        os.utime(file, (1, 1))
    assert source_digest(data) != before


def test_images_behind_a_link_are_part_of_the_input(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "1.png").write_bytes(b"one")
    (tmp_path / "images" / "dog").mkdir(parents=True)
    (tmp_path / "images" / "cat").symlink_to(tmp_path / "real")
    (tmp_path / "images" / "dog" / "round").symlink_to(tmp_path / "images")
    data = DataConfig(name="image_folder", options={"root": str(tmp_path / "images")})
    before = source_digest(data)
    (tmp_path / "real" / "1.png").write_bytes(b"two")
    assert source_digest(data) != before


def test_a_loaders_root_may_be_a_file_whose_contents_count(tmp_path: Path) -> None:
    file = tmp_path / "images.npz"
    file.write_bytes(b"one")
    data = DataConfig(name="mine:load", options={"root": str(file)})
    before = source_digest(data)
    file.write_bytes(b"two")
    assert source_digest(data) != before != ""
