"""Files of weights as training scripts write them, and what is refused in them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bonsai.profiles.errors import ConfigError
from bonsai.stages.networks.config import GivenWeights, ModelConfig
from bonsai.stages.networks.weights_files import NamedTensors, find_weights, read_weights
from bonsai.stages.store.artifact import fingerprint

MODEL = ModelConfig(name="resnet8")
STATE = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2)}


def read(file: Path) -> NamedTensors:
    return read_weights(find_weights(str(file)), MODEL)


def saved(folder: Path, what: Any, name: str = "best.pth") -> Path:
    torch.save(what, folder / name)
    return folder / name


def refusal(file: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        read(file)
    return str(refused.value)


@pytest.mark.parametrize(
    ("what", "entry"),
    [
        (STATE, ""),
        ({"state_dict": STATE, "epoch": 3}, "state_dict"),
        ({"model_state_dict": STATE, "optimizer_state_dict": {"state": {}, "param_groups": []}}, "model_state_dict"),
        ({"model": STATE, "args": {"lr": 0.1}}, "model"),
    ],
    ids=["plain", "state_dict", "model_state_dict", "model"],
)
def test_what_training_scripts_save_is_read(what: Any, entry: str, tmp_path: Path) -> None:
    for name in ("best.pth", "best.pt", "BEST.PTH"):
        found = read(saved(tmp_path, what, name))
        assert found.entry == entry
        assert all(torch.equal(found.tensors[key], value) for key, value in STATE.items())


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "best.safetensors")
    found = read(tmp_path / "best.safetensors")
    assert found.entry == ""
    assert all(torch.equal(found.tensors[key], value) for key, value in STATE.items())


def test_a_whole_network_is_refused_for_it_is_code(tmp_path: Path) -> None:
    said = refusal(saved(tmp_path, nn.Linear(3, 2)))
    assert said.startswith("model.weights: the file holds more than tensors, and code out of a file is not run")
    assert "best.pth, with torch.nn.modules.linear.Linear" in said
    assert "save the state_dict() alone" in said


@pytest.mark.parametrize(
    ("what", "held"),
    [({"epoch": 3, "loss": 0.1}, "a dict of epoch, loss"), ([torch.zeros(2)], "a list"), ({}, "a dict of ")],
    ids=["no tensors", "list", "empty"],
)
def test_a_file_without_a_state_dict_is_refused(what: Any, held: str, tmp_path: Path) -> None:
    said = refusal(saved(tmp_path, what))
    assert said.startswith("model.weights: the file holds no state_dict")
    assert f"best.pth, {held}" in said


@pytest.mark.parametrize("name", ["best.pth", "best.safetensors"])
def test_a_file_that_is_no_such_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"not weights at all")
    assert refusal(tmp_path / name).startswith("model.weights: ")


def test_a_file_that_is_not_there_is_told_with_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"model\.weights: no such file\n  given:   best\.pth, looked for in {tmp_path}"):
        find_weights("best.pth")


def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    given = find_weights(str(saved(tmp_path, STATE)))
    saved(tmp_path, {"fc.weight": torch.zeros(2, 3)})
    with pytest.raises(ConfigError, match="the file has changed since the run began"):
        read_weights(given, MODEL)


def test_contents_count_and_the_path_does_not(tmp_path: Path) -> None:
    first = saved(tmp_path, STATE)
    (tmp_path / "other").mkdir()
    copy = tmp_path / "other" / "copy.pth"
    copy.write_bytes(first.read_bytes())
    assert fingerprint(find_weights(str(first))) == fingerprint(find_weights(str(copy)))
    copy.write_bytes(saved(tmp_path, {"fc.weight": torch.zeros(2, 3)}).read_bytes())
    assert fingerprint(find_weights(str(copy))) != fingerprint(GivenWeights(kind="pretrained"))


@pytest.mark.parametrize(
    ("name", "weights", "said"),
    [
        ("resnet8", "best.bin", r"`weights` is a file \(\.safetensors, \.pth, \.pt\), `pretrained`, `recipe:NAME` or null, not 'best\.bin'"),
        ("resnet8", "pretrained", r"takes the weights of a library, and 'resnet8' has none: name a network timm/NAME or torchvision/NAME, or a file"),
    ],
)
def test_what_leads_to_no_weights_is_refused_in_the_recipe(name: str, weights: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ModelConfig(name=name, weights=weights)


@pytest.mark.parametrize("name", ["timm/resnet18", "torchvision/resnet18", "resnet18"])
def test_networks_of_libraries_may_be_pretrained(name: str) -> None:
    assert ModelConfig(name=name, weights="pretrained").weights_file is None


def test_the_weights_are_no_part_of_the_architecture() -> None:
    plain, given = ModelConfig(name="resnet8"), ModelConfig(name="resnet8", weights="best.pth")
    assert given.identity() == plain.identity()
    assert given.architecture == plain
