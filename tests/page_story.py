"""A page of the documentation as somebody does it who follows it: block by block, in one folder. Blocks are those of `pages.py`."""

import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from pages import Block, blocks_of

from bonsai.pipeline.recipes.recipe import Recipe, load_recipe
from bonsai.profiles.loader import load_profile
from bonsai.profiles.schema import HardwareProfile

SECONDS, SLOW_SECONDS = 300, 7200


class Story:
    """The blocks of a page, run in order in one folder, each once.

    `said` has what the processes of a block wrote to their standard output.
    """

    def __init__(self, page: Path, folder: Path) -> None:
        self.page, self.folder = page, folder
        self.faults: dict[Block, str | None] = {}
        self.said: dict[Block, str] = {}
        (folder / ".venv").symlink_to(sys.prefix)  # so that `. .venv/bin/activate` does what it does in a checkout

    def run(self, block: Block) -> None:
        """Run a block after those before it, but the slow ones where it is not slow itself."""
        for earlier in blocks_of(self.page):
            if earlier.line > block.line:
                break
            if earlier.not_run is None and (block.slow or not earlier.slow) and earlier not in self.faults:
                self.faults[earlier] = self.fault(earlier)
            if self.faults.get(earlier):
                pytest.fail(f"{earlier.name}\n{earlier.text}\n{self.faults[earlier]}", pytrace=False)

    def fault(self, block: Block) -> str | None:
        """Do what a block asks for; return what went wrong."""
        if block.file is not None:
            file = self.folder / block.file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
        if block.language == "sh":
            return self._process(block, "bash", "-euo", "pipefail", "-c", block.text)
        if block.language == "python" and block.file is None:
            return self._process(block, sys.executable, "-c", block.text)
        try:
            check_data(block, self.folder)
        except (ValueError, yaml.YAMLError) as error:
            return str(error)
        return None

    def _process(self, block: Block, *command: str) -> str | None:
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "ORT_DISABLE_TELEMETRY": "1"}
        limit = SLOW_SECONDS if block.slow else SECONDS
        process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        try:
            out, error = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # a server's children too
            process.communicate()
            return f"took more than {limit} s: mark it `<!-- slow -->`, or `<!-- not run: REASON -->`"
        self.said[block] = out
        return f"exit code {process.returncode}\n{out[-2000:]}\n{error[-4000:]}" if process.returncode else None


def check_data(block: Block, folder: Path) -> None:
    """Read a block of data as what it is: a recipe, a profile, keys of one of them, or any other file."""
    if block.language == "json":
        json.loads(block.text)
    if block.language == "toml":
        tomllib.loads(block.text)
    if block.language != "yaml":
        return
    data = yaml.safe_load(block.text)
    if not isinstance(data, dict):
        raise ValueError("a block of YAML holds a mapping")
    file = folder / (block.file or f"block-{block.line}.yaml")
    file.write_text(block.text, encoding="utf-8")
    if {"extends"} & set(data) or {"target", "budget"} <= set(data):
        load_profile(str(file))
    elif {"model", "data"} <= set(data):
        load_recipe(str(file))
    elif set(data) <= set(Recipe.model_fields):
        load_recipe("resnet-edge", entries(data))
    elif set(data) <= set(HardwareProfile.model_fields):
        load_profile("local-cpu", entries(data))


def entries(data: dict[str, Any]) -> dict[str, Any]:
    """Return what a part of a file sets, by dotted key: the rest of its sections stays as it is."""
    sections = {key: value for key, value in data.items() if isinstance(value, dict)}
    return {f"{key}.{name}": value for key, section in sections.items() for name, value in section.items()} | {
        key: value for key, value in data.items() if key not in sections
    }
