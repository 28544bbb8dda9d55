"""Every way in which a package can be broken ends in exit code 6 and names what is broken, from the real command line."""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_package import make_older, needs, reseal, write_graph

from bonsai.stages.delivery import verification
from bonsai.stages.delivery.sums import SUMS, write_sums
from bonsai.stages.delivery.verification import verify_package
from bonsai.stages.errors import DeviceUnavailable, VerificationError
from bonsai.stages.store.manifest import MANIFEST


def verify(package: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bonsai", "verify", str(package), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def change_last_byte(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1] + b"?")


def change_golden(package: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    golden = load_file(package / "golden.safetensors")
    save_file({**golden, "logits": change(golden["logits"])}, package / "golden.safetensors")
    reseal(package)


def compatible(package: Path, **needed: object) -> None:
    reseal(package, lambda facts: facts["compatibility"].update(needed))  # type: ignore[attr-defined]


def raise_in_the_loader(package: Path) -> None:
    (package / "engine.onnx").write_bytes(b"no graph")
    reseal(package)


def take_other_images(package: Path) -> None:
    golden = load_file(package / "golden.safetensors")
    save_file({**golden, "input": golden["input"][:, :, 0]}, package / "golden.safetensors")
    reseal(package)


def list_another_sum(package: Path) -> None:
    text = (package / SUMS).read_text()
    (package / SUMS).write_text(text.replace(text[:64], "0" * 64, 1))


def write_no_golden(package: Path) -> None:
    (package / "golden.safetensors").write_bytes(b"no safetensors")
    reseal(package)


def link_the_card(package: Path) -> None:
    shutil.move(package / "MODEL_CARD.md", package.parent / "card.md")
    (package / "MODEL_CARD.md").symlink_to(package.parent / "card.md")


def add_to_sums(package: Path, name: str) -> None:
    (package.parent / "outside.txt").write_text("outside")
    with (package / SUMS).open("a") as stream:
        stream.write(f"{hashlib.sha256(b'outside').hexdigest()}  {name}\n")


def edit_manifest(package: Path, part: str, **values: object) -> None:
    """Change a manifest into one that Bonsai would not write, with all sums right."""
    facts = json.loads((package / MANIFEST).read_text())
    facts[part].update(values)
    (package / MANIFEST).write_text(json.dumps(facts))
    write_sums(package)


def list_a_file_outside(package: Path) -> None:
    edit_manifest(package, "files", **{"../outside.txt": hashlib.sha256(b"outside").hexdigest()})
    add_to_sums(package, "outside.txt")


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "engine's last byte": (lambda p: change_last_byte(p / "engine.onnx"), "engine.onnx: its sha256 is not the manifest's"),
    "card's last byte": (lambda p: change_last_byte(p / "MODEL_CARD.md"), "MODEL_CARD.md: its sha256 is not the manifest's"),
    "missing engine": (lambda p: (p / "engine.onnx").unlink(), "engine.onnx: listed in the manifest, but missing"),
    "extra file": (lambda p: (p / "libextra.so").write_bytes(b"code"), "libextra.so: not listed in the manifest"),
    "no sums": (lambda p: (p / SUMS).unlink(), "SHA256SUMS: missing"),
    "other sums": (list_another_sum, "MODEL_CARD.md: SHA256SUMS and manifest.json disagree"),
    "manifest of one more blank": (lambda p: (p / MANIFEST).write_text((p / MANIFEST).read_text() + " "), "manifest.json: its sha256 is not the manifest's"),
    "runtime version": (lambda p: compatible(p, runtime_versions="==0.1.*"), "not valid for this version of onnxruntime"),
    "instruction set": (lambda p: compatible(p, isa=["asimd"]), "the CPU lacks asimd"),
    "operating system": (lambda p: compatible(p, system="Plan9"), "the operating system is another"),
    "architecture": (lambda p: compatible(p, architecture="m68k"), "the CPU has another architecture"),
    "golden logits": (lambda p: change_golden(p, lambda logits: logits + 1), "engine.onnx: golden outputs differ"),
    "golden logits that are no number": (lambda p: change_golden(p, lambda logits: logits * np.float32("nan")), "given:   nan% of the largest output"),
    "golden logits of another shape": (lambda p: change_golden(p, lambda logits: logits[:, :2].copy()), "engine.onnx: gives another shape of outputs"),
    "golden logits of fewer images": (lambda p: change_golden(p, lambda logits: logits[:2]), "golden.safetensors: no golden results"),
    "golden logits of another kind": (lambda p: change_golden(p, lambda logits: logits.astype(np.float64)), "golden.safetensors: no golden results"),
    "golden file that is no safetensors": (write_no_golden, "golden.safetensors: cannot be read"),
    "link in place of a file": (link_the_card, "MODEL_CARD.md: a link"),
    "linked folder": (lambda p: (p / "more").symlink_to(p.parent), "more: a link"),
    "empty folder": (lambda p: (p / "more").mkdir(), "more: an empty folder"),
    "pipe": (lambda p: os.mkfifo(p / "more"), "more: no regular file"),
    "file outside in the sums": (lambda p: add_to_sums(p, "../outside.txt"), "SHA256SUMS: a name that is no file of the package"),
    "absolute file in the sums": (lambda p: add_to_sums(p, "/etc/hostname"), "SHA256SUMS: a name that is no file of the package"),
    "file in the sums twice": (lambda p: add_to_sums(p, "MODEL_CARD.md"), "a file is named twice"),
    "file outside in the manifest": (list_a_file_outside, "manifest.json: a name that is no file of the package"),
    "runtime that is none": (lambda p: edit_manifest(p, "compatibility", runtime="pip"), "manifest.json: incomplete"),
    "runtime versions that are none": (lambda p: edit_manifest(p, "compatibility", runtime_versions="yes"), "manifest.json: incomplete"),
    "nested manifest": (lambda p: (p / MANIFEST).write_text("[" * 100_000), "manifest.json: not valid JSON"),
    "manifest with infinity": (lambda p: edit_manifest(p, "compatibility", threads=float("inf")), "manifest.json: not valid JSON"),
    "sums that are no text": (lambda p: (p / SUMS).write_bytes(b"\xff\xfe"), "SHA256SUMS: cannot be read"),
    "engine that is none": (raise_in_the_loader, "engine.onnx: does not load here"),
    "engine of other images": (take_other_images, "engine.onnx: its process ended with code 1\n  given:   onnxruntime."),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_package_ends_with_code_6_and_names_what_is_broken(package: Path, case: str) -> None:
    break_it, message = BROKEN[case]
    break_it(package)
    done = verify(package)
    assert done.returncode == 6, done.stderr
    assert message in done.stderr
    assert "\n  do:      " in done.stderr or "does not load here" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="other CPUs divide the smallest integer by -1")
def test_an_engine_that_crashes_its_process_ends_with_code_6_and_the_signal(package: Path) -> None:
    write_graph(package / "engine.onnx", divides=True)
    reseal(package)
    done = verify(package)
    assert done.returncode == 6, done.stderr
    assert "engine.onnx: its process was ended by SIGFPE\n  given:   it left no message" in done.stderr


def test_a_whole_package_passes_and_says_what_was_checked(package: Path) -> None:
    done = verify(package, "--require-run")
    assert done.returncode == 0, done.stderr
    files, program, machine, engine = done.stdout.splitlines()
    assert program == "predict.py: word for word what this Bonsai writes"
    assert files == "files: 8 files have the sha256 of SHA256SUMS and of the manifest, and there is no other"
    assert machine.startswith("machine: has onnxruntime ==")
    assert "in a process of its own, onnxruntime" in engine
    assert "gives the golden outputs of 3 images (largest difference 0.0e+00, at most 2%; golden by engine)" in engine


def test_a_package_of_an_earlier_version_passes(package: Path) -> None:
    make_older(package)
    assert [line.partition(":")[0] for line in verify_package(package)] == ["files", "machine", "engine"]


def test_another_program_is_told_and_not_run(package: Path) -> None:
    (package / "predict.py").write_text("raise SystemExit('run')\n")
    reseal(package)
    assert verify_package(package)[1] == "predict.py: not what this Bonsai writes, but another version, or somebody else; not run"


def test_sha256sum_accepts_a_package(package: Path) -> None:
    done = subprocess.run(["sha256sum", "--check", "--strict", "--quiet", SUMS], cwd=package, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_verification_imports_neither_torch_nor_a_runtime() -> None:
    code = "import sys, bonsai.stages.delivery.verification; print([name for name in ('torch', 'onnx', 'onnxruntime', 'tensorrt') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


FOREIGN_CPU = "cortex-a72" if platform.machine() in {"x86_64", "AMD64"} else "x86-avx2"


@pytest.mark.parametrize("profile", ["rtx-4090", "t4", FOREIGN_CPU])
def test_an_engine_of_an_absent_device_is_not_run_and_its_runtime_not_needed(package: Path, profile: str) -> None:
    reseal(package, lambda facts: facts.update(compatibility=needs(profile).model_dump()))
    done = verify(package, PATH="")  # so that nvidia-smi is not found where there is a GPU
    assert done.returncode == 0, done.stderr
    *_, built, unchecked = done.stdout.splitlines()
    assert built.startswith("built, not run: ")
    assert "is not in this machine" in built
    assert unchecked.startswith("not checked: that this machine has ")
    assert unchecked.endswith("the golden outputs")
    required = verify(package, "--require-run", PATH="")
    assert required.returncode == 5
    assert "the engine cannot be run here" in required.stderr


def test_a_changed_engine_of_an_absent_device_is_still_found(package: Path) -> None:
    reseal(package, lambda facts: facts.update(compatibility=needs("rtx-4090").model_dump()))
    change_last_byte(package / "engine.onnx")
    with pytest.raises(VerificationError, match=r"engine\.onnx: its sha256"):
        verify_package(package)


def test_a_runtime_that_is_not_installed_is_named(package: Path) -> None:
    compatible(package, runtime="onnxruntime-gpu")
    with pytest.raises(DeviceUnavailable, match=r"runtime 'onnxruntime-gpu' is not installed\n(.|\n)*pip install 'onnxruntime-gpu==1\."):
        verify_package(package)


def test_an_engine_that_does_not_answer_is_ended(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "PROBE_SECONDS", 0.05)
    with pytest.raises(VerificationError, match=r"its process did not answer and was ended\n  given:   more than 0\.05 s"):
        verify_package(package)


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": 1}', '{"schema_version": 2}', "\xff"])
def test_a_broken_manifest_is_refused(package: Path, text: str) -> None:
    (package / MANIFEST).write_text(text, encoding="latin-1")
    with pytest.raises(VerificationError, match=r"the file was changed|no package manifest"):
        verify_package(package)


def test_a_folder_that_is_no_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"no package, for it has no manifest\.json"):
        verify_package(tmp_path)


def test_an_engine_outside_the_list_is_refused(package: Path) -> None:
    reseal(package, lambda facts: facts["engine"].update(file="other.onnx"))  # type: ignore[attr-defined]
    with pytest.raises(VerificationError, match=r"other\.onnx: not listed in manifest\.json"):
        verify_package(package)


def test_the_manifest_lists_every_file_but_itself_and_the_sums(package: Path) -> None:
    facts = json.loads((package / MANIFEST).read_text())
    assert set(facts["files"]) == {path.name for path in package.iterdir()} - {MANIFEST, SUMS}
