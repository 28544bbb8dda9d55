"""Packages that another package is not to import."""

import importlib
import subprocess
import sys

import pytest

from bonsai.stages.imports.leaving_out import left_out


def test_a_package_is_not_found_meanwhile_and_found_afterwards() -> None:
    sys.modules.pop("colorsys", None)
    with left_out("colorsys"), pytest.raises(ImportError):
        importlib.import_module("colorsys")
    assert importlib.import_module("colorsys").rgb_to_hsv(0, 0, 0) == (0, 0, 0)


def test_a_package_that_is_imported_already_stays() -> None:
    module = importlib.import_module("colorsys")
    with left_out("colorsys"):
        assert importlib.import_module("colorsys") is module


def test_what_finds_groups_imports_neither_timm_nor_the_compiler() -> None:
    code = "import sys, bonsai.pipeline.run.plan; print(sorted({'timm', 'torchvision', 'torch._dynamo', 'sklearn', 'scipy.stats'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
