"""A package for a minimal build of ONNX Runtime: ``NAME.ort``, ``required_operators.config``, ``labels.txt``.

A minimal build cannot read ONNX files and contains only selected kernels. The first file is the engine in ORT format, which a minimal build can read.
The second lists the kernels for ONNX Runtime's build script (``--minimal_build --include_ops_by_config``).
"""

import logging
import shutil
import warnings
from pathlib import Path

from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.schema import Target
from bonsai.stages.backends.onnxruntime_engine import write_ort_format
from bonsai.stages.delivery.contents import CARD, PackageManifest, write_labels

OPERATORS = "required_operators.config"


def require_portable_kernels(target: Target) -> None:
    """Check that a target's engines are graphs of ONNX Runtime's own operators.

    Raises:
        ConfigError: They are another runtime's, or another execution provider compiles them.
    """
    if target.runs_on != "onnxruntime":
        raise ConfigError(
            describe(
                "layout ort: only ONNX Runtime with its own kernels has a minimal build",
                given=target.runs_on,
                allowed="onnxruntime",
                fix="leave the layout out, or choose a profile of this runtime",
            )
        )


def write_minimal(package: Path, manifest: PackageManifest, folder: Path) -> None:
    """Write the files.

    Args:
        package: Folder of a package that was found intact.
        manifest: Its manifest.
        folder: Empty folder for the files.

    Raises:
        BuildError: The engine does not load here, as one that was optimised for another CPU.
    """
    from onnxruntime.tools.ort_format_model import create_config_from_models  # takes a tenth of a second, for this alone

    engine = folder / f"{manifest.name}.ort"
    write_ort_format(package / manifest.engine.file, engine)
    operators = folder / OPERATORS
    logging.getLogger("ort_format_model.utils").setLevel(logging.WARNING)  # it would name a folder that is renamed at once
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves the file that it reads to the garbage collector
        create_config_from_models([engine], operators, enable_type_reduction=True)
    operators.write_text(operators.read_text().replace(str(engine), engine.name))  # not the folder that it lay in meanwhile
    shutil.copyfile(package / CARD, folder / CARD)
    write_labels(folder, manifest)
