"""What the container images are built from, as far as files tell: the Dockerfile, what it copies, and the versions that it installs."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from docker.utils.build import exclude_paths
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
INSTRUCTIONS = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text()).splitlines()
STAGES = {stage.splitlines()[0].split()[-1]: stage for stage in re.split(r"^FROM ", "\n".join(INSTRUCTIONS), flags=re.M)[1:]}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = {canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.M)}
UNPINNED = {"dev", "lightning", "transformers", "tensorrt"}  # three are in no image; the last needs a GPU, and was not tried
ASKED = [
    *PROJECT["build-system"]["requires"],
    *PROJECT["project"]["dependencies"],
    *(line for extra, lines in PROJECT["project"]["optional-dependencies"].items() if extra not in UNPINNED for line in lines),
]


def sent() -> set[str]:
    """Return the files that an engine is sent, by Docker's own reading of .dockerignore."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    return {str(path) for path in exclude_paths(str(ROOT), rules) if not (ROOT / path).is_dir() or (ROOT / path).is_symlink()}


def test_an_engine_is_sent_what_the_wheel_is_built_from_and_nothing_else() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "src", "profiles", "stages", "pipeline"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    needed = {"README.md", "pyproject.toml", "constraints.txt", *(name for name in tracked.stdout.split() if (ROOT / name).exists())}
    assert sent() - {"Dockerfile", ".dockerignore"} == needed  # these two are always sent, and copied nowhere


def test_every_file_that_the_dockerfile_copies_is_sent() -> None:
    copied = [line.split()[1:-1] for line in INSTRUCTIONS if line.startswith("COPY ") and "--from=" not in line]
    assert copied == [["pyproject.toml", "constraints.txt"], ["."]]
    assert {name for names in copied for name in names if name != "."} <= sent()


@pytest.mark.parametrize("target", ["device", "train"])
def test_the_dependencies_are_installed_before_the_sources_come(target: str) -> None:
    steps = STAGES[target].splitlines()
    copies, installs = ([step for step in steps if step.startswith(start)] for start in ("COPY ", "RUN pip install "))
    assert copies == ["COPY --from=wheel /wheel /wheel"]
    assert installs[-1] == "RUN pip install --no-deps --force-reinstall /wheel/*.whl"
    assert all(steps.index(step) < steps.index(copies[0]) for step in installs[:-1])
    assert "COPY . " not in STAGES["base"]


def test_torch_comes_into_the_image_for_training_alone() -> None:
    assert [name for name, stage in STAGES.items() if re.search(r"^RUN .*(torch|\[train)", stage, flags=re.M)] == ["train"]
    assert list(STAGES)[-1] == "train"  # the last one is what `docker build` makes unless a target is named


def test_the_base_image_is_pinned_to_a_patch_release() -> None:
    assert re.match(r"python:3\.\d+\.\d+-slim-\w+ AS base$", STAGES["base"].splitlines()[0])
    assert [stage.split()[0] for name, stage in STAGES.items() if name != "base"] == ["base"] * (len(STAGES) - 1)


@pytest.mark.parametrize("asked", ASKED)
def test_every_dependency_is_pinned_to_a_version_that_the_project_allows(asked: str) -> None:
    requirement = Requirement(asked)
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


def test_pins_name_no_builds_so_that_cpu_and_gpu_images_share_them() -> None:
    assert [version for version in PINS.values() if "+" in version] == []
