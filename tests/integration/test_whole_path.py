"""The whole path on a tiny network: every part is real."""

import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from lineages import ancestor, manifest_of
from PIL import Image
from safetensors.numpy import load_file, save_file
from tiny_package import reseal

from bonsai import compress, load
from bonsai.profiles.errors import ConfigError
from bonsai.stages.data.digits import load_digits
from bonsai.stages.delivery.contents import REPORTS, read_intact
from bonsai.stages.delivery.package_record import Package
from bonsai.stages.delivery.predict.program import Asked, answer
from bonsai.stages.delivery.verification import verify_package
from bonsai.stages.errors import VerificationError
from bonsai.stages.explanation.explaining import explain
from bonsai.stages.reporting.writing import write_reports

CONFIGS = Path(__file__).parent / "configs"
TINY, CPU, RTX = (str(CONFIGS / f"{name}.yaml") for name in ("tiny", "tiny-cpu", "tiny-rtx"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("whole")


@pytest.fixture(scope="module")
def packages(root: Path) -> tuple[Package, ...]:
    return compress(TINY, [CPU, RTX], store=root)


def bonsai(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "bonsai", *arguments], capture_output=True, text=True, check=False, cwd=cwd)


def change_golden(folder: Path, by: float) -> None:
    golden = load_file(folder / "golden.safetensors")
    save_file({**golden, "logits": golden["logits"] + np.float32(by)}, folder / "golden.safetensors")
    reseal(folder)


def test_the_engine_is_within_its_budget_smaller_and_runs_as_int8(packages: tuple[Package, ...], root: Path) -> None:
    dense, ptq, qat, pruned, engine = packages[0].rows
    assert {gate.name: gate.passed for gate in packages[0].gates} == {"latency": True, "accuracy drop": True, "float convolutions": True}
    assert engine.latency is not None
    assert dense.latency is not None
    assert (engine.precision, engine.shipped) == ("int8", True)
    assert "int8 is the fastest engine that meets" in packages[0].notes[0]
    assert engine.latency.source == "measured"
    assert engine.latency.n >= 1000
    latency = packages[0].gates[0]
    assert latency.low is not None
    assert latency.high is not None
    assert latency.low < latency.found < latency.high <= latency.limit
    assert "The verdict: timed again in" in packages[0].notes[2]
    assert engine.latency.p50 <= engine.latency.p95 <= engine.latency.p99
    assert engine.latency.p50 <= 0.45 * dense.latency.p50
    assert [row.label for row in (ptq, qat)] == ["simulated int8 PTQ", "simulated int8 QAT"]
    assert pruned.macs == ptq.macs == qat.macs == engine.macs < dense.macs
    assert engine.size_bytes < pruned.size_bytes < dense.size_bytes
    assert engine.accuracy.measured_by == "engine"
    assert engine.accuracy.low < engine.accuracy.value < engine.accuracy.high
    assert engine.accuracy.n == 450
    kernels = [node.op_type for node in onnx.load(root / "packages" / "tiny--tiny-cpu" / "engine.onnx").graph.node]
    assert kernels.count("QLinearConv") == 9
    assert not {"Conv", "FusedConv"} & set(kernels)


def test_no_layer_of_the_engine_stands_out_and_the_dense_reference_is_timed_beside_it(packages: tuple[Package, ...], root: Path) -> None:
    found = explain(root / "packages" / packages[0].name, root)
    assert found.findings == ()
    conv = next(layer for layer in found.layers if layer.name == "layer1.0.conv1")
    assert conv.dense_us is not None
    assert conv.engine_us is not None
    assert conv.dense_us > conv.engine_us
    assert found.accuracy[0].startswith("dense fp32: top-1 ")


def test_the_manifest_holds_what_a_stranger_needs(packages: tuple[Package, ...], root: Path) -> None:
    manifest = manifest_of(root)
    written = {"MODEL_CARD.md", "training.svg", "report.html", "report.md", "predict.py", "test_samples.txt"}
    network = {"network.pt2", "network.safetensors", "network.json"}
    assert set(manifest["files"]) == {"model.onnx", "engine.onnx", "golden.safetensors", "test_results.safetensors"} | written | network
    needed = manifest["compatibility"]
    assert (needed["runtime"], needed["built_with"]) == ("onnxruntime", manifest["tools"]["onnxruntime"])
    assert (needed["system"], needed["isa"], needed["batch"]) == (platform.system(), manifest["device"]["isa"], [1, 1])
    card = (root / "packages" / "tiny--tiny-cpu" / "MODEL_CARD.md").read_text()
    assert f"needs onnxruntime {needed['runtime_versions']}, " in card
    for licence in ("CC BY 4.0", "trained from scratch on these data alone", "onnxruntime, MIT", "Apache-2.0"):
        assert licence in card
    assert {"torch", "torch-pruning", "onnx", "onnxruntime", "onnxsim"} <= set(manifest["tools"])
    assert manifest["device"]["present"] is True
    assert manifest["recipe"]["name"] == "tiny"
    assert manifest["profile"]["budget"]["latency"] == 0.45
    widths = manifest["decisions"]["fit"]["widths"]
    assert all(width % 16 == 0 for width in widths.values())
    assert sum(widths.values()) < sum(manifest["decisions"]["dense_widths"].values())


def test_the_report_is_made_of_the_manifest_alone_and_calls_estimates_so(packages: tuple[Package, ...], root: Path, tmp_path: Path) -> None:
    folders = [root / "packages" / package.name for package in packages]
    for folder in folders:
        write_reports(tmp_path / folder.name, [read_intact(folder)], title=folder.name)
        for name in REPORTS:
            assert (tmp_path / folder.name / name).read_bytes() == (folder / name).read_bytes()
    measured, estimated = ((folder / "report.md").read_text() for folder in folders)
    assert "Kernels of pruned int8 (shipped), under the profiler:" in measured
    assert "QLinearConv" in measured
    assert "ESTIMATED" not in measured
    assert "Latency is ESTIMATED: the engine was built, but not run" in estimated
    assert bonsai("report", *map(str, folders), "--out", str(tmp_path / "both")).returncode == 0
    comparison = (tmp_path / "both" / "report.md").read_text()
    assert "| tiny-cpu | all gates met |" in comparison
    assert "| tiny-rtx | met, latency by estimate |" in comparison
    assert "minutes are the training of the dense trunk" in comparison


def test_two_targets_share_one_trunk(packages: tuple[Package, ...], root: Path) -> None:
    trunks = []
    for package in packages:
        lineage = {a["artifact"]: a for a in manifest_of(root, package.name)["lineage"]}
        trunks.append({address for address in lineage if address.startswith("train_dense/")})
        assert len([address for address in lineage if address.startswith("prune/")]) == len(package.decisions.attempts)
        assert any(address.startswith("characterize/") for address in lineage)
    assert trunks[0] == trunks[1]
    assert len(trunks[0]) == len(list((root / "train_dense").iterdir()))


def test_an_engine_for_an_absent_gpu_is_built_and_its_latency_called_estimated(
    packages: tuple[Package, ...], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [row.label for row in packages[1].rows] == ["dense fp32", "pruned fp32", "pruned fp16 (shipped)"]
    engine = packages[1].rows[-1]
    assert engine.latency.source == "estimated"
    assert engine.latency.p99 is None
    assert engine.accuracy.measured_by == "onnxruntime on the same ONNX file"
    assert packages[1].notes[0] == "Precision: fp16, the profile's own; nothing was measured here, so it is not proven faster than fp32 or int8."
    folder = root / "packages" / "tiny--tiny-rtx"
    assert (folder / "engine.plan").stat().st_size > 1e4
    assert "ESTIMATED" in (folder / "MODEL_CARD.md").read_text()
    monkeypatch.setenv("PATH", "")  # so that nvidia-smi is not found where there is another GPU
    assert "built, not run: GeForce RTX 4090 is not in this machine" in verify_package(folder)[2]
    assert "tensorrt-rtx ==1." in (folder / "MODEL_CARD.md").read_text()


def test_a_pruned_network_loads_bit_equal_in_a_fresh_process(packages: tuple[Package, ...], root: Path) -> None:
    lineage = manifest_of(root)["lineage"]
    folder = root / next(a["artifact"] for a in lineage if a["artifact"].startswith("prune/"))
    network = load(folder)
    assert type(network).__name__ == "CifarResNet"
    assert sum(parameter.numel() for parameter in network.parameters()) < 0.9 * packages[0].rows[0].parameters
    code = f"import torch; from bonsai import load; print(load({str(folder)!r})(torch.ones(2, 1, 16, 16)).tolist())"
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(fresh.stdout) == network(torch.ones(2, 1, 16, 16)).tolist()


def test_a_package_s_network_opens_in_plain_torch_and_in_its_class_to_the_bit(packages: tuple[Package, ...], root: Path) -> None:
    lineage = manifest_of(root)["lineage"]
    checkpoint = root / next(a["artifact"] for a in lineage if a["artifact"].startswith("quantize/"))
    folder, images = root / "packages" / "tiny--tiny-cpu", torch.linspace(-1, 1, 512).reshape(2, 1, 16, 16)
    expected = load(checkpoint)(images).tolist()
    assert load(folder)(images).tolist() == expected
    code = "import sys, torch; network = torch.export.load(sys.argv[1]).module(); "
    code += "print(network(torch.linspace(-1, 1, 512).reshape(2, 1, 16, 16)).tolist())"
    fresh = subprocess.run([sys.executable, "-c", code, str(folder / "network.pt2")], capture_output=True, text=True, check=True)
    assert json.loads(fresh.stdout) == expected


def test_the_figure_of_a_package_is_computed_again_from_image_files(
    packages: tuple[Package, ...], root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digits = load_digits(size=16)
    for number, (pixels, label) in enumerate(zip(digits.images.numpy(), digits.labels.tolist(), strict=True)):
        (tmp_path / digits.classes[label]).mkdir(exist_ok=True)
        Image.fromarray(pixels[0]).save(tmp_path / digits.classes[label] / f"{number}.png")
    assert answer(root / "packages" / "tiny--tiny-cpu", Asked(check=tmp_path)) == 0
    said = capsys.readouterr().out
    assert f"({packages[0].rows[-1].judged.value!r}) on 450 of 1797 samples, by engine" in said
    assert said.endswith("these are its test samples; the figures are equal\n")


def test_a_folder_without_a_network_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match="no network in this folder"):
        load(root)


@pytest.mark.long
@pytest.mark.parametrize("criterion", ["bn_gradient", "fpgm"])
def test_another_criterion_and_schedule_share_the_trunk(packages: tuple[Package, ...], root: Path, criterion: str) -> None:
    trunk = set((root / "train_dense").iterdir())
    schedule = {"name": "geometric", "steps": 4, "iterations": 3}
    (package,) = compress(TINY, CPU, {"prune.criterion": criterion, "prune.normalisation": "isomorphic", "prune.schedule": schedule}, store=root)
    assert set((root / "train_dense").iterdir()) == trunk
    assert package.gates[0].passed
    assert package.decisions.fit.widths != {}


@pytest.mark.long
@pytest.mark.parametrize(
    ("policy", "epoch", "curve_length"),
    [("{name: epoch, epoch: 1}", 1.0, 4), ("{name: initialisation}", 0.0, 1), ("{name: trained, finetune: {epochs: 1}}", 4.0, 3)],
    ids=["epoch", "initialisation", "trained"],
)
def test_a_policy_decides_when_the_branch_leaves(packages: tuple[Package, ...], root: Path, policy: str, epoch: float, curve_length: int) -> None:
    (package,) = compress(TINY, CPU, {"prune.policy": policy, "prune.criterion": "snip", "quantize.qat": "never"}, store=root)
    trigger = package.decisions.trigger
    assert (trigger.epoch, trigger.stable, len(trigger.curve)) == (epoch, True, curve_length)
    assert package.gates[0].passed
    card = (root / "packages" / "tiny--tiny-cpu" / "MODEL_CARD.md").read_text()
    assert f"Pruned at epoch {epoch:g}" in card
    assert "kept: PTQ. QAT was skipped" in card


@pytest.mark.slow
def test_the_removal_chooses_again_and_still_fits(packages: tuple[Package, ...], root: Path) -> None:
    (package,) = compress(TINY, CPU, {"prune.schedule": {"name": "linear", "steps": 3, "iterations": 4}, "prune.criterion": "bn_gradient"}, store=root)
    assert ancestor(root, "prune")["inputs"]["schedule"]["name"] == "linear"
    dense, engine = package.rows[0].latency, package.rows[-1].latency
    assert dense is not None
    assert engine is not None
    assert engine.p50 <= 0.45 * dense.p50
    assert set(package.decisions.kept_widths) == set(package.decisions.fit.widths)


@pytest.mark.slow
def test_a_second_run_repeats_nothing_and_one_qat_setting_repeats_what_follows(packages: tuple[Package, ...], root: Path, tmp_path: Path) -> None:
    def count() -> dict[str, int]:
        return {stage.name: len(list(stage.iterdir())) for stage in root.iterdir() if not stage.name.startswith(".")}

    before = count()
    again = compress(TINY, [CPU, RTX], store=root)
    assert again == packages
    assert count() == before
    (changed,) = compress(TINY, CPU, {"quantize.lr": 0.004}, store=root, out=tmp_path)  # the tests below look at the first package
    timed = {"benchmark"}  # candidates are timed again where the engine came out off its budget, even if no other widths are found
    grown = {stage: count()[stage] - before[stage] for stage in before.keys() - timed if count()[stage] != before[stage]}
    branches = len(changed.decisions.attempts)  # a second one where other widths are found
    expected = {"quantize": branches, "export": branches, "compile": branches, "measure": branches, "assess": 1, "time_engine": 1, "package": 1}
    assert all(grown[stage] >= count for stage, count in expected.items())
    assert branches > 1 or grown == expected


def test_only_the_shipped_and_the_dense_engine_see_the_test_part_which_is_kept(packages: tuple[Package, ...], root: Path) -> None:
    parts = {row.label: (row.accuracy.part, row.accuracy.n) for row in packages[0].rows}
    assert {label for label, found in parts.items() if found == ("test", 450)} == {"dense fp32", "pruned int8 (shipped)"}
    assert {part for label, (part, _) in parts.items() if label not in {"dense fp32", "pruned int8 (shipped)"}} == {"validation"}
    results = load_file(root / "packages" / "tiny--tiny-cpu" / "test_results.safetensors")
    assert (results["engine"] == results["labels"]).mean() == packages[0].rows[-1].accuracy.value
    assert (results["dense"] == results["labels"]).mean() == packages[0].rows[0].accuracy.value


@pytest.mark.slow
def test_an_engine_is_compared_with_that_of_an_earlier_package(packages: tuple[Package, ...], root: Path, tmp_path: Path) -> None:
    release = tmp_path / "release"
    shutil.copytree(root / "packages" / "tiny--tiny-cpu", release)
    run = ("run", TINY, "--profile", CPU, "--store", str(root), "--out", str(tmp_path / "out"), "--against", str(release))
    ran = bonsai(*run, "--set", "profile.against.max_slowdown=1", "--json")
    (package,) = json.loads(ran.stdout)
    gates = {gate["name"]: gate["verdict"] for gate in package["gates"]}
    assert (ran.returncode, gates["drop against tiny--tiny-cpu"], gates["slowdown against tiny--tiny-cpu"]) == (0, "met", "met")
    assert package["against"]["drop"][0] == 0
    assert read_intact(tmp_path / "out" / "tiny--tiny-cpu").against is not None
    (release / "engine.onnx").write_bytes(b"changed")
    broken = bonsai(*run)
    assert (broken.returncode, "the file was changed" in broken.stderr) == (6, True)


def test_dry_run_says_what_is_finished_and_trains_nothing(packages: tuple[Package, ...], root: Path, tmp_path: Path) -> None:
    done = bonsai("run", TINY, "--profile", CPU, "--store", str(root), "--dry-run", "--json")
    target = json.loads(done.stdout)["targets"][0]
    assert target["next_stage"] is None
    assert target["cached"]["quantize"] == len(packages[0].decisions.attempts)
    assert target["prospect"]["source"] == "dense timed by an earlier run, smallest predicted"
    fresh = bonsai("run", TINY, "--store", str(tmp_path / "new"), "--dry-run", "--json")
    (target,) = json.loads(fresh.stdout)["targets"]
    assert target["next_stage"] == "prepare"
    assert target["prospect"]["source"].startswith("timed just now")
    assert 0 < target["prospect"]["smallest_ms"] < target["prospect"]["dense_ms"]
    assert not (tmp_path / "new").exists()


def test_the_command_line_prints_the_table_and_json_and_fails_on_a_missed_gate(packages: tuple[Package, ...], root: Path) -> None:
    shown = bonsai("run", TINY, "--profile", CPU, "--store", str(root))
    assert shown.returncode == 0
    assert "simulated int8 QAT" in shown.stdout
    assert "limit 0.45: met" in shown.stdout
    parsed = bonsai("run", TINY, "--profile", CPU, "--store", str(root), "--json")
    assert json.loads(parsed.stdout)[0]["engine_sha256"] == packages[0].engine_sha256
    missed = bonsai("run", TINY, "--profile", CPU, "--store", str(root), "--set", "profile.gates.min_metric=0.9999")
    assert missed.returncode == 3
    assert "accuracy: " in missed.stderr
    assert "MISSED" in missed.stderr


def test_a_finished_engine_is_timed_again_and_nothing_else_is_done(packages: tuple[Package, ...], root: Path) -> None:
    def artifacts() -> set[str]:
        return {f"{folder.parent.name}/{folder.name}" for folder in root.glob("[a-z]*/*") if folder.parent.name != "packages"}

    assert bonsai("run", TINY, "--profile", CPU, "--store", str(root), "--allow-undecided").returncode == 0  # other tests publish under this name too
    before, lineage = artifacts(), manifest_of(root)["lineage"]
    again = bonsai("run", TINY, "--profile", CPU, "--store", str(root), "--remeasure", "--allow-undecided", "--json")
    assert again.returncode == 0, again.stderr
    new = artifacts() - before
    assert sorted(address.split("/")[0] for address in new) == ["package", "time_engine"]
    assert json.loads(again.stdout)[0]["engine_sha256"] == packages[0].engine_sha256
    timed = {a["artifact"] for a in manifest_of(root)["lineage"]}
    assert timed - {a["artifact"] for a in lineage} == {address for address in new if address.startswith("time_engine/")}
    assert bonsai("run", TINY, "--profile", CPU, "--store", str(root), "--allow-undecided").returncode == 0
    assert artifacts() == before | new
    verified = bonsai("verify", str(root / "packages" / "tiny--tiny-cpu"), "--time", "--store", str(root), "--allow-undecided")
    assert verified.returncode == 0, verified.stderr
    assert "of dense FP32 p50, limit 0.45: " in verified.stdout.splitlines()[-1]


def test_what_is_not_finished_or_not_here_is_not_timed_again(packages: tuple[Package, ...], root: Path) -> None:
    unfinished = bonsai("run", TINY, "--profile", CPU, "--store", str(root), "--remeasure", "--set", "training.epochs=5")
    assert unfinished.returncode == 2
    assert "--remeasure: profile tiny-cpu has no finished engine\n  given:   stage train_dense has not run" in unfinished.stderr
    away = bonsai("run", TINY, "--profile", RTX, "--store", str(root), "--remeasure")
    assert away.returncode == 2
    assert "--remeasure: profile tiny-rtx cannot be timed" in away.stderr


def test_verify_accepts_a_package_and_names_the_first_thing_that_differs(packages: tuple[Package, ...], root: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(root / "packages" / "tiny--tiny-cpu", tmp_path / "package")
    assert "golden outputs of 3 images" in verify_package(folder)[-1]
    engine = folder / "engine.onnx"
    engine.write_bytes(engine.read_bytes()[:-1] + b"?")
    with pytest.raises(VerificationError, match=r"engine.onnx: its sha256 is not the manifest's"):
        verify_package(folder)
    assert bonsai("verify", str(folder)).returncode == 6
    engine.unlink()
    with pytest.raises(VerificationError, match=r"engine.onnx: listed in the manifest, but missing"):
        verify_package(folder)


def test_verify_runs_the_engine_and_not_only_the_hashes(packages: tuple[Package, ...], root: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(root / "packages" / "tiny--tiny-cpu", tmp_path / "package")
    change_golden(folder, 1.0)
    with pytest.raises(VerificationError, match="golden outputs differ"):
        verify_package(folder)


def test_a_package_is_laid_out_for_triton_after_a_run_or_later(packages: tuple[Package, ...], root: Path, tmp_path: Path) -> None:
    assert bonsai("run", TINY, "--profile", CPU, "--store", str(root), "--layout", "triton").returncode == 0
    later = bonsai("layout", "triton", str(root / "packages" / "tiny--tiny-cpu"), "--out", str(tmp_path / "models"))
    assert later.stdout.strip() == str(tmp_path / "models" / "tiny--tiny-cpu")
    for model in (root / "packages" / "triton" / "tiny--tiny-cpu", tmp_path / "models" / "tiny--tiny-cpu"):
        assert sorted(file.name for file in model.rglob("*") if file.is_file()) == ["MODEL_CARD.md", "config.pbtxt", "labels.txt", "model.onnx", "predict.py"]
        assert "dims: [1, 16, 16]" in (model / "config.pbtxt").read_text()
    refused = bonsai("run", TINY, "--profile", RTX, "--store", str(tmp_path / "none"), "--layout", "triton")
    assert refused.returncode == 2
    assert "Triton does not run engines of this runtime" in refused.stderr
    assert not (tmp_path / "none").exists()


def test_a_float_profile_skips_quantisation(root: Path) -> None:
    overrides = {"profile.name": "tiny-float", "profile.target.precision": "fp32", "profile.budget.latency": 0.8, "timing.runs": 200}
    (package,) = compress(TINY, CPU, overrides, store=root)
    assert [row.label for row in package.rows] == ["dense fp32", "pruned fp32 (shipped)"]
    assert package.rows[1].macs < package.rows[0].macs
    assert "Not quantised" in (root / "packages" / "tiny--tiny-float" / "MODEL_CARD.md").read_text()
