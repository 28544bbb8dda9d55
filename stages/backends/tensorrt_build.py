"""Builds one TensorRT engine in a process of its own: a `Request` as JSON on stdin, the answer as JSON on the last line of stdout.

After a failed build the next one in the same process came out different, so a process builds once and ends. It is started by the path of
this file and imports nothing of Bonsai, whose other modules would cost seconds; the library's name is an argument, so that one file serves
`tensorrt` and `tensorrt_rtx`.
"""

import importlib
import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMING_CACHE = "timing.cache"
"""File beside an engine: the kernel timings by which TensorRT chose the kernels."""
DYNAMIC = -1
"""The library's value for a dimension of any size."""
WIDENS = ("UNSQUEEZE", "SHUFFLE")
"""Layers by which a release's parser adds a dimension."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to build.

    Attributes:
        library: Import name, ``tensorrt`` or ``tensorrt_rtx``.
        graph: The ONNX file.
        engine: The file to write.
        image_shape: (channels, height, width) of the only input; several have the graph's own shapes.
        batch: Images per inference that kernels are chosen for, and the most that the engine takes; all that it takes where the graph fixes them.
        sparse_weights: Whether layers with 2:4 sparse weights may run by kernels for that.
        timing_cache: File of kernel timings to build with, where it exists, and to write; None keeps none.
        capability: Member of the library's ``ComputeCapability`` to build for; None builds for the GPU of this machine.
    """

    library: str
    graph: str
    engine: str
    image_shape: tuple[int, ...]
    batch: int
    capability: str | None
    timing_cache: str | None = None
    sparse_weights: bool = False


class Refused(Exception):
    """The library does not build the graph.

    Args:
        messages: Its own words, the first cause first.
    """

    def __init__(self, messages: list[str]) -> None:
        super().__init__("; ".join(messages))
        self.messages = messages


def build_engine(trt: Any, request: Request) -> dict[str, int]:
    """Build and write the engine; return what the parsed network holds.

    Raises:
        Refused: The parser or the builder refuses the graph.
    """
    logger = message_logger(trt)
    try:
        builder = trt.Builder(logger)
    except TypeError as error:  # how the bindings report that the library itself made none, for want of a driver
        raise Refused(logger.messages or [str(error)]) from error
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))  # needed by 10, ignored by 11 and by RTX
    parser = trt.OnnxParser(network, logger)  # owns the weights until the engine is built
    if not parser.parse_from_file(request.graph):
        raise Refused([str(parser.get_error(index)) for index in range(parser.num_errors)])
    config = _config(trt, builder, network, request)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise Refused(logger.messages)
    if request.timing_cache is not None:
        Path(request.timing_cache).write_bytes(config.get_timing_cache().serialize())
    Path(request.engine).write_bytes(plan)
    return count_layers(trt, network)


def message_logger(trt: Any) -> Any:
    """Return a logger for the library that keeps errors in its list `messages` and drops the rest."""

    class MessageLogger(trt.ILogger):  # type: ignore[misc]  # the library, an argument, has no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self.messages.append(message)

    return MessageLogger()


def count_layers(trt: Any, network: Any) -> dict[str, int]:
    """Count in the network as parsed; what became of it in the engine only an inspector on the GPU may tell."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    kinds = Counter(layer.type for layer in layers)
    dequantized = set[str]()
    for layer in layers:  # behind the DequantizeLinear the parser gives series a second dimension
        widened = layer.type.name in WIDENS and layer.get_input(0).name in dequantized
        if widened or layer.type == trt.LayerType.DEQUANTIZE:
            dequantized.add(layer.get_output(0).name)
    return {
        "network_layers": len(layers),
        "network_convolutions": kinds[trt.LayerType.CONVOLUTION],
        "quantized_convolutions": sum(_takes_only(layer, dequantized) for layer in layers if layer.type == trt.LayerType.CONVOLUTION),
        "quantize_layers": kinds[trt.LayerType.QUANTIZE],
        "dequantize_layers": kinds[trt.LayerType.DEQUANTIZE],
    }


def _takes_only(layer: Any, names: set[str]) -> bool:
    """Return whether a convolution's images and weights both are among the named tensors; constant weights are no tensor."""
    inputs = [layer.get_input(index).name for index in range(layer.num_inputs)]
    return len(inputs) > 1 and set(inputs[:2]) <= names


def _config(trt: Any, builder: Any, network: Any, request: Request) -> Any:
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else the inspector has only names to tell; the plan grows by nothing in RTX
    if request.timing_cache is not None:
        known = Path(request.timing_cache)
        cache = config.create_timing_cache(known.read_bytes() if known.exists() else b"")
        if not config.set_timing_cache(cache, ignore_mismatch=False):
            raise Refused(["the timing cache is of another GPU or another version of the library"])
    if request.sparse_weights:
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    if request.capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, request.capability), 0)
    fixed = network.num_inputs > 0 and network.get_input(0).shape[0] != DYNAMIC
    fewest = request.batch if fixed else 1
    shapes = builder.create_optimization_profile()
    for tensor in map(network.get_input, range(network.num_inputs)):
        own = request.image_shape if network.num_inputs == 1 else tuple(tensor.shape)[1:]
        shapes.set_shape(tensor.name, *((images, *own) for images in (fewest, request.batch, request.batch)))
    config.add_optimization_profile(shapes)
    return config


def main() -> None:
    """Answer one request: ``coverage``, or why there is no engine: ``refused`` or ``unavailable``."""
    request = Request(**json.load(sys.stdin))
    answer: dict[str, Any]
    try:
        trt = importlib.import_module(request.library)
    except (ImportError, OSError) as error:  # OSError: the package is there, one of its shared libraries is not
        answer = {"unavailable": str(error)}
    else:
        try:
            answer = {"coverage": build_engine(trt, request)}
        except Refused as refused:
            answer = {"refused": refused.messages}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
