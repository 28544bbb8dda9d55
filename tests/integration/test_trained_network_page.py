"""The stranger's path, as docs/trained-network.md says it: trained weights, images, milliseconds, and an engine that runs without torch."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from page_story import Story
from pages import ROOT, Block, blocks_of
from PIL import Image
from torch import nn

from bonsai import load
from bonsai.stages.delivery.contents import read_intact

pytestmark = pytest.mark.long  # two whole runs, and an environment of its own

PAGE = ROOT / "docs" / "trained-network.md"


class Stranger:
    """Somebody who follows the page, and takes as budget one and a half times the smallest latency that the dry run prints."""

    def __init__(self, folder: Path) -> None:
        self.story = Story(PAGE, folder)
        self.folder = folder
        self.budget_ms = 0.0

    def follow(self, block: Block) -> str:
        """Do what a block says, and return what its commands printed."""
        if block.edit is not None:
            file = self.folder / block.edit
            file.write_text(yaml.safe_dump(edited(yaml.safe_load(file.read_text()), yaml.safe_load(block.text)), sort_keys=False))
            return ""
        if recipe := re.match(r"bonsai run (\w+)\.yaml$", block.text, re.MULTILINE):
            device = self.folder / f"{recipe[1]}-device.yaml"
            device.write_text(re.sub(r"latency_ms: [\d.]+", f"latency_ms: {self.budget_ms:.4f}", device.read_text()))
        whole = replace(block, slow=True)
        with pytest.MonkeyPatch.context() as patch:
            if "device/bin/" in block.text:
                patch.delenv("PYTHONPATH", raising=False)  # a device has no checkout
            fault = self.story.fault(whole)
        assert fault is None, f"{block.name}\n{block.text}\n{fault}"
        said = self.story.said.get(whole, "")
        if found := re.search(r"latency: dense [\d.]+ ms, smallest ([\d.]+) ms", said):
            self.budget_ms = 1.5 * float(found[1])
        return said

    def shipped(self, name: str) -> nn.Module:
        """Return the network of a package, whose engine was judged by the budget in milliseconds."""
        folder = self.folder / "artifacts" / "packages" / name
        (latency,) = [gate for gate in read_intact(folder).gates if gate.name == "latency"]
        assert latency.unit == "ms p50"
        assert latency.found <= latency.limit == pytest.approx(self.budget_ms, abs=1e-4)
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(self.folder)  # where the network's class is
            return load(folder)


def edited(data: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Return what a file says after somebody has typed the changes into it."""
    joined = {key: edited(data[key], value) for key, value in change.items() if isinstance(value, dict) and key in data and key != "budget"}
    return {**data, **change, **joined}


def parts_of(page: Path) -> tuple[Block, list[Block], list[Block]]:
    """Return the block that makes the device's environment, and the others of the page's two parts."""
    border = page.read_text(encoding="utf-8").partition("\n## Masks\n")[0].count("\n")
    (environment,) = [block for block in blocks_of(page) if "-m venv" in block.text]
    others = [block for block in blocks_of(page) if block != environment]
    return environment, [block for block in others if block.line <= border], [block for block in others if block.line > border]


ENVIRONMENT, CLASSES, MASKS = parts_of(PAGE)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Stranger:
    made = Stranger(tmp_path_factory.mktemp("stranger"))
    made.follow(ENVIRONMENT)
    others = "import importlib.util as u; print([name for name in ('torch', 'bonsai', 'onnx', 'scipy') if u.find_spec(name)])"
    assert made.follow(replace(ENVIRONMENT, text=f'device/bin/python -c "{others}"')).strip() == "[]"
    return made


def test_trained_weights_become_an_engine_that_classifies_without_torch(stranger: Stranger) -> None:
    *_, last = [stranger.follow(block) for block in CLASSES]
    network = stranger.shipped("shapes--shapes-device")
    assert network.get_submodule("stem.0").out_channels == 32
    assert sum(layer.out_channels for layer in network.modules() if isinstance(layer, nn.Conv2d)) < 32 + 64 + 64 + 96
    assert "shapes/test/ring/0.jpg: ring" in last
    assert "the figures are equal" in last


def test_trained_weights_become_an_engine_that_segments_without_torch(stranger: Stranger) -> None:
    *_, last = [stranger.follow(block) for block in MASKS]
    network = stranger.shipped("scenes--scenes-device")
    assert network.get_submodule("down1.0").out_channels == 32
    found, right = (np.asarray(Image.open(stranger.folder / name)) for name in ("predicted/000.png-0.png", "scenes/test/masks/000.png"))
    assert (found == right[::2, ::2]).mean() > 0.9
    assert "the figures are equal" in last
