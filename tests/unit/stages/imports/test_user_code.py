import sys
from pathlib import Path

import hard_networks
import pytest
import torch
from hard_networks import Plain
from torch import nn

from bonsai.profiles.errors import ConfigError
from bonsai.stages.imports.registry import resolve
from bonsai.stages.imports.user_code import place_of, user_code
from bonsai.stages.networks.calling import copy_network, evaluating, outputs_of, unfrozen
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.inspection import require_whole_state
from bonsai.stages.networks.registry import build_network, require_outputs
from bonsai.stages.tasks.classification.learning import ClassificationLearning
from bonsai.stages.tasks.task import DataSpec
from bonsai.stages.training.config import TrainConfig

SHAPE = (3, 12, 12)
SPEC, LEARNING = DataSpec(SHAPE, 10), ClassificationLearning(TrainConfig())
BODIES = {
    "AssertionError": "assert False, 'too small'",
    "IndexError": "[][0]",
    "KeyError": "{}['head']",
    "AttributeError": "None.shape",
    "ZeroDivisionError": "1 // 0",
    "TypeError": "len(1)",
    "NameError": "no_such_name",
    "StopIteration": "next(iter([]))",
    "NotImplementedError": "raise NotImplementedError",
    "RecursionError": "(lambda f: f(f))(lambda f: f(f))",
    "SystemExit": "raise SystemExit(3)",
    "FileNotFoundError": "open('/no/such/file')",
    "ModuleNotFoundError": "import no_such_module",
    "Own": "raise type('Own', (Exception,), {})('mine')",
    "RuntimeError": "raise RuntimeError('first line\\nsecond line')",
}
NETWORK = """
import torch
from torch import nn

class Network(nn.Module):
    def __init__(self, in_channels, num_classes):
        super().__init__()
        self.fc = nn.Linear(in_channels, num_classes)
{constructor}
    def forward(self, x):
{forward}
        return self.fc(x.mean((2, 3)))
"""


def written(folder: Path, monkeypatch: pytest.MonkeyPatch, **parts: str) -> ModelConfig:
    """Write a network whose constructor or forward does something, and return how it is named."""
    text = NETWORK.format(constructor=f"        {parts.get('constructor', 'pass')}", forward=f"        {parts.get('forward', 'pass')}")
    name = f"stranger_{abs(hash((str(folder), text)))}"
    (folder / f"{name}.py").write_text(parts.get("before", "") + text)
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    return ModelConfig(name=f"{name}:Network")


def line_of(folder: Path, code: str) -> str:
    (file,) = folder.glob("stranger_*.py")
    number = next(number for number, line in enumerate(file.read_text().splitlines(), 1) if code.splitlines()[0] in line)
    return rf"{file.stem}\.py, line {number}\)"


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("where", ["constructor", "forward"])
def test_whatever_a_network_raises_is_told_in_one_message_with_its_line(where: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = written(tmp_path, monkeypatch, **{where: BODIES[kind]})
    problem = "model.options do not fit model" if where == "constructor" else "the network does not run on the dataset's images"
    with pytest.raises(ConfigError, match=rf"(?s)^{problem}.*\n  given:   {kind}[^\n]*{line_of(tmp_path, BODIES[kind])}[^\n]*\n  allowed") as told:
        require_outputs(build_network(config, SHAPE, 10), SPEC, LEARNING)
    assert told.value.exit_code == 2


@pytest.mark.parametrize("kind", ["IndexError", "StopIteration", "SystemExit"])
def test_whatever_a_file_raises_while_it_is_imported_is_told_with_its_line(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = written(tmp_path, monkeypatch, before=f"\n{BODIES[kind]}\n")
    with pytest.raises(ConfigError, match=rf"cannot be imported\n  given:   .*{kind}.*stranger_\d+\.py:2\)"):
        build_network(config, SHAPE, 10)


def test_a_file_that_is_no_python_is_told_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = written(tmp_path, monkeypatch, before="\nif:\n")
    with pytest.raises(ConfigError, match=r"SyntaxError: invalid syntax.*stranger_\d+\.py:2\)"):
        resolve(config.name, {}, "model")


@pytest.mark.parametrize("error", ["assert", "index", "key", "attribute", "zero"])
def test_every_error_of_the_raising_network_names_its_file_and_line(error: str) -> None:
    network = hard_networks.Raises(error=error)
    with pytest.raises(ConfigError, match=r"hard_networks\.py, line \d+\)"):
        require_outputs(network, SPEC, LEARNING)


def test_an_error_in_training_alone_is_told_before_any_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = written(tmp_path, monkeypatch, forward="x = x[[]][0] if self.training else x")
    with pytest.raises(ConfigError, match=rf"given:   IndexError.*{line_of(tmp_path, 'self.training')}"):
        require_whole_state(config, build_network(config, SHAPE, 10), SPEC, LEARNING)


def test_an_error_in_the_backward_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = written(tmp_path, monkeypatch, forward="x = x * self.fc.weight.mean(); x.register_hook(lambda g: {}['g']) if x.requires_grad else None")
    with pytest.raises(ConfigError, match=r"given:   KeyError: 'g' \(stranger_\d+\.py, line \d+\)"):
        require_whole_state(config, build_network(config, SHAPE, 10), SPEC, LEARNING)


def test_ctrl_c_and_our_own_errors_go_through() -> None:
    for error in (KeyboardInterrupt(), ConfigError("ours")):
        with pytest.raises(type(error)) as raised, user_code("a problem", allowed="nothing", fix="nothing"):
            raise error
        assert raised.value is error


def test_the_users_own_line_comes_before_a_librarys() -> None:
    try:
        nn.functional.linear(torch.zeros(2, 3), torch.zeros(4, 5))
    except RuntimeError as error:
        place = place_of(error)
    assert place is not None
    assert place.file == Path(__file__)


class Broken(Plain):
    def middle(self, x: torch.Tensor) -> torch.Tensor:
        raise LookupError


def test_modes_and_frozen_parameters_are_as_before_whatever_was_raised() -> None:
    network = Broken()
    network.bn1.eval()
    network.conv1.weight.requires_grad_(False)
    seen: list[bool] = []

    def run() -> None:
        with evaluating(network), unfrozen(network):
            seen.extend([network.training, network.conv1.weight.requires_grad])
            outputs_of(network, torch.zeros(2, *SHAPE))

    with pytest.raises(ConfigError):
        run()
    assert seen == [False, True]
    assert network.training
    assert network.bn2.training
    assert not network.bn1.training
    assert [name for name, parameter in network.named_parameters() if not parameter.requires_grad] == ["conv1.weight"]


class Remembers(Plain):
    """Keeps biases for evaluation until it is trained again, as timm's LeViT does, and its last activations."""

    def __init__(self) -> None:
        super().__init__()
        self.bias, self.kept, self.last = nn.Parameter(torch.zeros(48, 1, 1)), {}, []

    def train(self, mode: bool = True) -> nn.Module:
        if mode:
            self.kept = {}
        return super().train(mode)

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            self.kept.setdefault("bias", self.bias + 0)
        self.last = [x * 1]
        return x + (self.bias if self.training else self.kept["bias"])


def test_what_a_network_keeps_for_evaluation_is_forgotten_with_it() -> None:
    network = Remembers()
    with evaluating(network):
        network(torch.zeros(2, *SHAPE))
        assert network.kept
    assert not network.kept


def test_a_network_with_tensors_of_an_earlier_forward_is_copied() -> None:
    network = Remembers()
    with evaluating(network):
        network(torch.zeros(2, *SHAPE))
        copied = copy_network(network)
        assert torch.equal(copied.kept["bias"], network.kept["bias"])
    assert copied.last[0].grad_fn is None
    assert copied.conv1.weight is not network.conv1.weight
