"""Runs ONNX files on this machine's CPU, and returns the tensors inside."""

from collections.abc import Iterable, Mapping

import numpy as np
import onnx

from bonsai.stages.backends.reference import open_as_written
from bonsai.stages.backends.running import feeder
from bonsai.stages.explanation.layers import Graph

Tensors = dict[str, np.ndarray]
"""By name, what a tensor held for each image, (images, ...): behind the first side comes the tensor's own shape for one image, (1, ...)."""


class Host:
    """An ONNX file, computed node by node as it stands there: no optimiser changes it.

    Args:
        model: The file.
        wanted: Names of the tensors to return.

    Raises:
        BuildError: ONNX Runtime cannot load it.
    """

    def __init__(self, model: onnx.ModelProto, wanted: Iterable[str]) -> None:
        shown = onnx.ModelProto()
        shown.CopyFrom(model)
        self._batch = max(1, *(value.type.tensor_type.shape.dim[0].dim_value for value in model.graph.input if value.type.tensor_type.HasField("shape")))
        self._inputs = Graph(model).inputs
        self._wanted = [name for name in dict.fromkeys(wanted) if name not in self._inputs]
        del shown.graph.output[:]
        shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self._wanted)
        self._session = open_as_written(shown.SerializeToString())

    def run(self, images: np.ndarray, given: Mapping[str, np.ndarray] | None = None) -> Tensors:
        """Return the tensors.

        Args:
            images: (images, ...) float32, several inputs flattened and joined.
            given: Values of further inputs, (images, 1, ...).
        """
        more = given or {}
        feeds = feeder({name: shape for name, shape in self._inputs.items() if name not in more})
        runs = []
        for number, image in enumerate(images):
            fed = {name: np.repeat(value, self._batch, axis=0) for name, value in feeds(image[None]).items()}
            fed |= {name: np.repeat(value[number], self._batch, axis=0) for name, value in more.items()}
            runs.append([output if self._batch == 1 else output[:1] for output in self._session.run(None, fed)])
        return {name: np.stack([run[place] for run in runs]) for place, name in enumerate(self._wanted)}
