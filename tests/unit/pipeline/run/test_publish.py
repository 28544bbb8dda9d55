from pathlib import Path

import pytest
from pydantic import ValidationError
from tiny_package import make_package

from bonsai.pipeline.run.publish import lay_out, replace_folder
from bonsai.profiles.errors import ConfigError
from bonsai.stages.delivery.contents import PackageManifest, read_intact
from bonsai.stages.delivery.verification import verify_package


def made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return make_package(folder)


@pytest.mark.parametrize("out", ["packages", "packages/tiny--local-cpu", "packages/tiny--local-cpu/triton"])
def test_a_layout_is_never_written_over_its_package_or_into_it(tmp_path: Path, out: str) -> None:
    package = made(tmp_path / "packages" / "tiny--local-cpu")
    with pytest.raises(ConfigError, match="would be written into the package, or in its place"):
        lay_out("triton", package, tmp_path / out)
    verify_package(package)


@pytest.mark.parametrize("name", ["../../outside", "/outside", "one\nplatform", ".hidden", ""])
def test_a_package_whose_name_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    facts = read_intact(made(tmp_path / "package")).model_dump(mode="json")
    with pytest.raises(ValidationError, match="1 validation error"):
        PackageManifest.model_validate({**facts, "name": name})


def test_what_was_there_survives_a_kill_between_the_renames_and_a_writing_that_fails(tmp_path: Path) -> None:
    final = tmp_path / "package"
    (tmp_path / ".old-package").mkdir()
    (tmp_path / ".old-package" / "engine.onnx").write_text("whole")

    def fail(fresh: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        replace_folder(final, fail)
    assert (final / "engine.onnx").read_text() == "whole"
    replace_folder(final, lambda fresh: (fresh / "engine.onnx").write_text("new"))
    assert (final / "engine.onnx").read_text() == "new"
    assert not (tmp_path / ".old-package").exists()
