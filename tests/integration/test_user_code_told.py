"""What a user brings, through the command line: code that raises, libraries, devices that are not here, small sets, networks that learn nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from walking import TINY, inspected

from bonsai.pipeline.cli.main import main
from bonsai.stages.errors import BuildError
from bonsai.stages.graph.config import ExportConfig
from bonsai.stages.graph.parity import compare, require_parity
from bonsai.stages.store.manifest import tool_versions
from bonsai.stages.tasks.classification.judging import CLASSIFICATION

ROOT = Path(__file__).parents[2]
CONFIGS = Path(__file__).parent / "configs"


def end_of(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """Run the command in this process; return its exit code and what it told."""
    monkeypatch.setattr(sys, "argv", ["bonsai", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("hard_networks:Raises", ["hard_networks.py", "expected 224x224 images"]),
        ("harder_networks:RaisesItsOwn", ["harder_networks.py", "OwnError", "the camera is not calibrated"]),
        ("harder_networks:RaisesInTraining", ["harder_networks.py", "targets"]),
        ("harder_networks:raises_at_once", ["harder_networks.py", "neck"]),
    ],
)
def test_code_that_raises_ends_in_exit_code_2_with_its_file_and_line(
    model: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = end_of(
        ["run", str(TINY), "--set", f"model.name={model}", "--set", "model.options={}", "--dry-run", "--store", str(tmp_path)], monkeypatch, capsys
    )
    assert code == 2
    assert "Traceback" not in told
    for word in words:
        assert word in told


@pytest.mark.parametrize(
    "text",
    [
        "import torchvision\n\ndef build(*, in_channels, num_classes):\n    return torchvision.models.squeezenet1_1(num_classes=num_classes)\n",
        "import timm\n\ndef build(*, in_channels, num_classes):\n    return timm.create_model('resnet10t', in_chans=in_channels, num_classes=num_classes)\n",
    ],
    ids=["torchvision", "timm"],
)
def test_a_users_file_may_import_a_library_whose_operators_are_not_here(text: str, tmp_path: Path) -> None:
    (tmp_path / "my_own_net.py").write_text(text)
    recipe = TINY.read_text().replace("{name: resnet8, options: {width: 32}}", "{name: my_own_net:build}")
    assert "my_own_net" in recipe
    (tmp_path / "mine.yaml").write_text(recipe)
    code = (
        "from bonsai.pipeline.recipes.recipe import load_recipe\nfrom bonsai.stages.networks.registry import build_network\n"
        "print(sum(p.numel() for p in build_network(load_recipe('mine.yaml', {}).model, (3, 64, 64), 10).parameters()))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100_000


def test_what_cannot_be_exported_for_an_absent_device_is_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", str(TINY), "--profile", str(CONFIGS / "tiny-rtx.yaml"), "--set", "model.name=harder_networks:NoOnnx", "--set", "model.options={}"]
    arguments += ["--set", "profile.budget.latency=0.99", "--set", "prune.margin=0"]
    code, told = end_of([*arguments, "--store", str(tmp_path / "store")], monkeypatch, capsys)
    assert code in (2, 4), told
    assert "qr" in told
    assert "Traceback" not in told
    assert not (tmp_path / "store" / "train_dense").exists()


@pytest.mark.parametrize(("images", "flipped"), [(45, 1), (45, 0), (20, 1), (5, 1), (1000, 19)])
def test_one_image_between_two_classes_ends_no_run_on_a_small_set(images: int, flipped: int) -> None:
    require_parity(flipped_parity(images, flipped), ExportConfig())


@pytest.mark.parametrize(("images", "flipped"), [(45, 9), (1000, 60)])
def test_an_exported_graph_of_many_other_answers_is_refused(images: int, flipped: int) -> None:
    with pytest.raises(BuildError, match="the prediction differs on"):
        require_parity(flipped_parity(images, flipped), ExportConfig())


def flipped_parity(images: int, flipped: int) -> dict[str, float]:
    """Compare logits with themselves, but for some images whose two best classes lie so close that they change places."""
    logits = torch.randn(images, 10, generator=torch.Generator().manual_seed(0)) * 3
    for row in range(flipped):
        first, second = logits[row].topk(2).indices
        logits[row, second] = logits[row, first] - 1e-3
    swapped = logits.clone()
    for row in range(flipped):
        first, second = logits[row].topk(2).indices
        swapped[row, first], swapped[row, second] = logits[row, second], logits[row, first]

    class Answers(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return logits[x[:, 0, 0, 0].long()]

    numbers = torch.arange(images, dtype=torch.float32).reshape(-1, 1, 1, 1)
    return compare(Answers(), lambda x: swapped.numpy()[x[:, 0, 0, 0].astype(int)], numbers, CLASSIFICATION)


def test_keeping_every_layer_whole_is_refused_by_name() -> None:
    told = inspected("Plain", **{"prune.keep": ["conv*"]})
    assert told.kind == "refused"
    assert "no channels of this network can be pruned" in told.message
    assert "prune.keep conv*" in told.message


def test_a_manifest_names_the_version_of_bonsai() -> None:
    assert [tool for tool in tool_versions() if "bonsai" in tool]


@pytest.mark.slow  # a whole run
def test_a_reference_that_learnt_nothing_makes_no_green_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", str(TINY), "--profile", str(CONFIGS / "tiny-cpu.yaml"), "--set", "training.lr=1e-9", "--set", "quantize.qat=never"]
    arguments += ["--set", "profile.budget.latency=0.9", "--set", "prune.caps={'*': 0.75}", "--set", "timing={runs: 100, fitting: 2, tries: 1}"]
    for gate, code in ((["--allow-undecided"], 0), (["--set", "profile.gates.min_metric=0.5"], 3)):  # the second run trains and builds nothing again
        found, told = end_of([*arguments, *gate, "--store", str(tmp_path / "store")], monkeypatch, capsys)
        assert found == code, told
        (card,) = (tmp_path / "store" / "packages").glob("*/MODEL_CARD.md")
        assert "always naming the largest class gives" in card.read_text()
        assert "UNDECIDED" in card.read_text()
