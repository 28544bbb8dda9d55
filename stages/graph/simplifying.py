"""onnxsim in a process of its own: its native code has crashed on valid files."""

from pathlib import Path

import onnx

from bonsai.stages.errors import BuildError
from bonsai.stages.worker import call

SECONDS = 600.0
"""Time limit of a simplification, in seconds."""


def simplify(model: onnx.ModelProto, scratch: Path) -> onnx.ModelProto:
    """Return the simplified model.

    Args:
        model: It is left as it was.
        scratch: Folder for two files, which are deleted again.

    Raises:
        BuildError: onnxsim refuses the model, ends its process or changes what it computes.
    """
    source, file = scratch / "simplify-from.onnx", scratch / "simplify-to.onnx"
    try:
        onnx.save(model, source)
        arguments = {"source": str(source), "file": str(file)}
        if not call("bonsai.stages.graph.simplifying:_simplify", arguments, doing="simplifying the graph with onnxsim", seconds=SECONDS):
            raise BuildError("the simplification changed the outputs")
        return onnx.load(file)
    finally:
        source.unlink(missing_ok=True)
        file.unlink(missing_ok=True)


def _simplify(source: str, file: str) -> bool:
    import onnxsim  # costs a second, and only an export pays it

    simplified, same_outputs = onnxsim.simplify(onnx.load(source))
    onnx.save(simplified, file)
    return bool(same_outputs)
