"""Bad input ends in one message and its exit code, in seconds, before any training."""

import subprocess
import sys
from pathlib import Path

import pytest

from bonsai.pipeline.cli.main import main

CONFIGS = Path(__file__).parent / "configs"
TINY, SAME_NAME = str(CONFIGS / "tiny.yaml"), str(CONFIGS / "same-name.yaml")

CASES = {
    "unknown key": (["--set", "prune.latency=0.4"], 2, ["--set prune.latency: unknown key 'prune.latency'", "given:", "allowed: ", "do:"]),
    "unknown key of the profile": (["--set", "profile.budget.latencies=1"], 2, ["unknown key 'budget.latencies'", "did you mean 'latency'"]),
    "missing profile": (["--profile", "rtx-409"], 2, ["no profile of this name (did you mean 'rtx-4090'?)", "given:   rtx-409"]),
    "missing dataset folder": (
        ["--set", "data.name=image_folder", "--set", "data.options={root: /nowhere}"],
        2,
        ["no such folder", "given:   /nowhere", "check the path"],
    ),
    "missing model": (["--set", "model.name=resnet9"], 2, ["no model of this name", "resnet8"]),
    "mistyped model option": (["--set", "model.options={widht: 3}"], 2, ["model.options do not fit", "widht"]),
    "not a number": (["--set", "training.epochs=many"], 2, ["'training.epochs' is not usable", "'many'"]),
    "unclosed bracket": (["--set", "data.options={size: 32"], 2, ["--set data.options: not valid YAML"]),
    "key set twice": (["--set", "training.epochs=2", "--set", "training.epochs=3"], 2, ["--set training.epochs: given twice", "2, then 3"]),
    "key inside another": (["--set", "training.epochs=2", "--set", "training={lr: 0.1}"], 2, ["contradicts another override"]),
    "two profiles of one name": (["--profile", "local-cpu", "--profile", SAME_NAME], 2, ["two profiles have one name", "local-cpu, local-cpu"]),
    "no version range": (["--set", "profile.target.runtime_version=latest"], 2, ["'target.runtime_version' is not usable"]),
    "nothing to choose": (["--set", "prune.floor=1.0"], 2, ["no group has two widths to choose from"]),
    "unknown layer in float": (
        ["--set", "quantize.keep_float=[layer1.0.convl]"],
        2,
        ["quantize.keep_float: nothing that computes has this name", "did you mean 'layer1.0.conv"],
    ),
    "image of no size": (["--set", "data.options={size: 0}"], 2, ["data.options do not fit dataset 'digits'"]),
    "network of no width": (["--set", "model.options={width: 0}"], 2, ["the network does not run on the dataset's images"]),
    "training too short": (["--set", "training.epochs=1", "--set", "training.batch_size=1024"], 2, ["the training is too short for EPI to fire"]),
    "packages in a file": (["--out", str(CONFIGS / "tiny.yaml")], 2, ["--out: files cannot be written there"]),
    "branches on values": (
        ["--set", "model.name=tests.untraceable:by_value"],
        2,
        ["neither by torch.fx nor by torch.export", "values of tensors (untraceable.py"],
    ),
    "no value": (["--set", "training.epochs"], 2, ["--set needs a key and a value"]),
    "precision that the runtime lacks": (["--set", "profile.target.precision=fp16"], 2, ["one of `precisions`: fp32, int8", "fp16"]),
    "runtime version": (["--set", "profile.target.runtime_version='>=99'"], 5, ["version that the profile does not allow", ">=99"]),
}


@pytest.mark.filterwarnings("default:Initializing zero-element")  # torch, of the network of no width
@pytest.mark.parametrize("case", CASES)
def test_bad_input_ends_in_one_message(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, code, fragments = CASES[case]
    store = tmp_path / "store"
    monkeypatch.setattr(sys, "argv", ["bonsai", "run", TINY, *arguments, "--store", str(store)])
    with pytest.raises(SystemExit) as end:
        main()
    told = capsys.readouterr().err
    assert end.value.code == code, told
    for fragment in fragments:
        assert fragment in told
    assert not (store / "train_dense").exists()


@pytest.mark.parametrize(
    ("factory", "options", "fragments"),
    [
        ("HiddenMask", "{}", ["the network is more than its state_dict", "given:   mask, order"]),
        *(
            ("Raises", f"{{error: {error}}}", ["the network does not run", "hard_networks.py, line"])
            for error in ("assert", "index", "key", "attribute", "zero")
        ),
    ],
)
def test_a_network_that_cannot_be_trained_ends_in_one_message(
    factory: str, options: str, fragments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = "model: {name: resnet8, options: {width: 32}}"
    text = Path(TINY).read_text()
    assert plain in text
    (tmp_path / "own.yaml").write_text(text.replace(plain, f"model: {{name: 'tests.hard_networks:{factory}', options: {options}}}"))
    store = tmp_path / "store"
    monkeypatch.setattr(sys, "argv", ["bonsai", "run", str(tmp_path / "own.yaml"), "--store", str(store)])
    with pytest.raises(SystemExit) as end:
        main()
    told = capsys.readouterr().err
    assert end.value.code == 2, told
    assert "Traceback" not in told
    for fragment in fragments:
        assert fragment in told
    assert not (store / "train_dense").exists()


def test_a_missing_recipe_lists_the_shipped_ones() -> None:
    done = subprocess.run([sys.executable, "-m", "bonsai", "run", "resnet-egde"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "did you mean 'resnet-edge'?" in done.stderr


def test_an_impossible_budget_is_refused_before_training_with_the_smallest_latency(tmp_path: Path) -> None:
    store = tmp_path / "store"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "bonsai.pipeline.cli.main",
            "run",
            TINY,
            "--set",
            "profile.budget.latency=0.01",
            "--set",
            "timing.fitting=2",
            "--store",
            str(store),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "the latency budget cannot be met" in done.stderr
    assert "at least" in done.stderr
    assert (store / "characterize").exists()
    assert not (store / "train_dense").exists()
