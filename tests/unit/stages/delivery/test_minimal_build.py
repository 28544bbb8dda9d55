from pathlib import Path

import numpy as np
import pytest
from tiny_package import CLASSES, ask, reseal

from bonsai.pipeline.run.publish import lay_out
from bonsai.profiles.errors import ConfigError
from bonsai.profiles.loader import load_profile
from bonsai.stages.backends.onnxruntime_engine import backend
from bonsai.stages.delivery.golden import read_golden
from bonsai.stages.delivery.minimal_build import require_portable_kernels


def test_the_file_gives_the_packages_golden_logits(package: Path, tmp_path: Path) -> None:
    folder = lay_out("ort", package, tmp_path / "ort")
    assert sorted(file.name for file in folder.iterdir()) == ["MODEL_CARD.md", "labels.txt", "required_operators.config", "tiny--local-cpu.ort"]
    engine = folder / "tiny--local-cpu.ort"
    assert engine.read_bytes()[4:8] == b"ORTM"
    images, logits = read_golden(package)
    np.testing.assert_array_equal(backend.open_engine(engine, load_profile("local-cpu").target)(images[:1]), logits[:1])
    assert (folder / "labels.txt").read_text().splitlines() == list(CLASSES)


def test_the_operators_are_those_of_the_engine(package: Path, tmp_path: Path) -> None:
    lines = (lay_out("ort", package, tmp_path / "ort") / "required_operators.config").read_text().splitlines()
    assert lines[:2] == ["# Generated from model/s:", "# - tiny--local-cpu.ort"]
    operators = {name.partition("{")[0] for line in lines[2:] for name in line.split(";")[2].split(",")}
    assert {"Conv", "GlobalAveragePool"} <= operators
    assert not {"Relu", "QLinearConv"} & operators


@pytest.mark.parametrize(("profile", "overrides"), [("rtx-4090", {}), ("local-cpu-openvino", {}), ("local-cpu", {"target.provider": "openvino"})])
def test_engines_that_are_compiled_otherwise_are_refused(package: Path, tmp_path: Path, profile: str, overrides: dict[str, str]) -> None:
    changed = load_profile(profile, overrides)
    with pytest.raises(ConfigError, match=rf"layout ort(.|\n)*given:   {changed.target.runs_on}\n"):
        require_portable_kernels(changed.target)
    reseal(package, lambda facts: ask(facts, changed))
    with pytest.raises(ConfigError, match="layout ort"):
        lay_out("ort", package, tmp_path / "ort")
    assert not (tmp_path / "ort").exists()
