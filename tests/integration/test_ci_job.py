"""The steps of examples/ci, run as the workflow runs them."""

import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path

import pytest
import yaml
from tiny_comparison import CONFIGS, Compared

ROOT = Path(__file__).parents[2]
CI = ROOT / "examples" / "ci"


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a job: this interpreter's programs first, and the files that GitHub gives to a step."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "RECIPE": str(CONFIGS / "tiny.yaml"),
        "PROFILES": str(CONFIGS / "tiny-wide.yaml"),
        "SETTINGS": "training.epochs=2 training.threads=1",
        "STORE": str(tmp_path / "store"),
        "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "page.md"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "RUNNER_OS": "Linux",
        "FORCE_COLOR": "1",
    }


@pytest.fixture
def finished(compared: Compared, job: dict[str, str]) -> Path:
    """Return the job's store, in which everything is finished: a copy, since a job writes packages and a comparison of its own."""
    return Path(shutil.copytree(compared.store, job["STORE"]))


def step(script: str, job: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", str(CI / script)], env=job, cwd=ROOT, capture_output=True, text=True, check=False)


def verdicts(store: str) -> dict[str, str]:
    """Return failure, error or passed by case."""
    cases = ET.parse(Path(store) / "ci" / "junit.xml").getroot().findall("testsuite/testcase")
    return {str(case.get("name")): next((child.tag for child in case if child.tag in {"failure", "error"}), "passed") for case in cases}


def test_a_job_whose_gates_are_met_ends_well_and_says_so(finished: Path, job: dict[str, str], tmp_path: Path) -> None:
    done = step("run.sh", job)
    assert done.returncode == 0, done.stderr
    assert verdicts(job["STORE"]) == {"latency": "passed", "accuracy drop": "passed"}
    page = (tmp_path / "page.md").read_text()
    assert page == (finished / "ci" / "summary.md").read_text()
    assert "| tiny-wide | fp32 |" in page
    assert "::error" not in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_a_gate_that_cannot_be_met_ends_in_code_3_with_an_annotation(finished: Path, job: dict[str, str], tmp_path: Path) -> None:
    job |= {"SETTINGS": f"{job['SETTINGS']} profile.gates.min_metric=0.9999"}
    done = step("run.sh", job)
    assert done.returncode == 3, done.stderr
    assert verdicts(job["STORE"]) == {"latency": "passed", "accuracy drop": "passed", "accuracy": "failure"}
    annotations = [line for line in done.stdout.splitlines() if line.startswith("::")]
    assert len(annotations) == 1
    assert annotations[0].startswith("::error title=tiny--tiny-wide%3A gate accuracy missed::accuracy: 0.")
    assert "MISSED" in (tmp_path / "page.md").read_text()
    assert (finished / "packages" / "tiny--tiny-wide" / "engine.onnx").exists()


def test_a_job_that_fails_before_its_gates_still_reports(job: dict[str, str], tmp_path: Path) -> None:
    job |= {"PROFILES": f"{CONFIGS / 'tiny-away.yaml'} {CONFIGS / 'tiny-wide.yaml'}"}
    done = step("run.sh", job)
    assert done.returncode == 5, done.stderr
    assert verdicts(job["STORE"]) == {"run": "error"}
    assert "::error title=tiny%3A failed%2C code 5::" in done.stdout
    assert "failed, code 5" in (tmp_path / "page.md").read_text()
    assert "Traceback" not in done.stderr


def test_a_comparison_shows_every_profile_has_a_suite_for_each_and_ends_with_the_first_failures_code(finished: Path, job: dict[str, str]) -> None:
    job |= {"COMMAND": "compare", "PROFILES": f"{CONFIGS / 'tiny-away.yaml'} {CONFIGS / 'tiny-wide.yaml'}"}
    done = step("run.sh", job)
    assert done.returncode == 5, done.stderr
    root = ET.parse(finished / "ci" / "junit.xml").getroot()
    assert [(suite.get("name"), suite.get("errors"), suite.get("tests")) for suite in root] == [("tiny--tiny-away", "1", "1"), ("tiny--tiny-wide", "0", "2")]
    assert "FAILED, code 5" in done.stdout
    assert "2 met" in done.stdout
    assert "error: 1 of 2 profiles failed: tiny-away (code 5)" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_key_of_the_store_follows_the_files_and_settings(job: dict[str, str], tmp_path: Path) -> None:
    profile = tmp_path / "mine.yaml"
    profile.write_text("extends: local-cpu\nname: mine\n")
    changes: list[dict[str, str]] = [{}, {}, {"SETTINGS": "quantize.epochs=2"}, {"RECIPE": "resnet-edge"}]
    for change in changes:
        assert step("store-key.sh", {**job, "PROFILES": f"{profile} t4", **change}).returncode == 0
    profile.write_text("extends: local-cpu\nname: mine\nbudget: {latency: 0.5}\n")
    step("store-key.sh", {**job, "PROFILES": f"{profile} t4"})
    keys = (tmp_path / "output").read_text().splitlines()
    assert all(key.startswith("key=bonsai-Linux-") and len(key) == len("key=bonsai-Linux-") + 16 for key in keys)
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


def test_the_install_step_installs_what_it_is_given(job: dict[str, str], tmp_path: Path) -> None:
    """A wheel that needs no building stands for Bonsai's, whose installation `test_wheel.py` shows."""
    wheel, facts = tmp_path / "small-1.0-py3-none-any.whl", "small-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as files:
        files.writestr("small.py", "value = 1\n")
        files.writestr(f"{facts}/METADATA", "Metadata-Version: 2.1\nName: small\nVersion: 1.0\n")
        files.writestr(f"{facts}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        files.writestr(f"{facts}/RECORD", "")
    done = step("install.sh", {**job, "BONSAI": str(wheel), "PIP_TARGET": str(tmp_path / "site"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "small.py").read_text() == "value = 1\n"


def test_the_workflow_runs_these_scripts_and_keeps_what_they_leave() -> None:
    workflow = yaml.safe_load((CI / "github-actions.yml").read_text())
    job = workflow["jobs"]["engines"]
    steps = {step["name"]: step for step in job["steps"] if "name" in step}
    scripts = [step["run"] for step in job["steps"] if "run" in step]
    forget = 'rm -rf "$STORE/packages" "$STORE/comparisons"'
    assert scripts == ["bash examples/ci/install.sh", "bash examples/ci/store-key.sh", forget, "bash examples/ci/run.sh"]
    assert job["env"]["BONSAI"] == ".[train,rtx]"  # what the profiles need
    assert {script.removeprefix("bash examples/ci/") for script in scripts if script != forget} == {file.name for file in CI.glob("*.sh")}
    assert {"BONSAI", "COMMAND", "RECIPE", "PROFILES", "SETTINGS", "STORE"} <= set(job["env"])
    restored, kept = steps["Restore the store"], steps["Keep the store, a stopped or failed run's too"]
    assert restored["with"]["path"] == kept["with"]["path"] == "${{ env.STORE }}"
    assert restored["with"]["key"] == kept["with"]["key"]
    assert f"steps.{steps['Name the store']['id']}.outputs.key" in kept["with"]["key"]
    upload = steps["Upload packages and reports"]
    assert [step for step in steps.values() if step.get("if") == "always()"] == [kept, upload]
    assert upload["with"]["path"].splitlines() == ["${{ env.STORE }}/" + name for name in ("packages", "comparisons", "ci")]
