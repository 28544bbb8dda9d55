"""What a library's native code may do to its process, for calls of `bonsai.stages.worker`."""

import os
import signal
import sys
import time

from bonsai.stages.errors import BuildError, DeviceUnavailable


def double(number: int) -> int:
    print("a library prints")
    return 2 * number


def process() -> int:
    return os.getpid()


def end_by(name: str) -> None:
    os.kill(os.getpid(), getattr(signal, name))


def leave(code: int) -> None:
    print("out of luck", file=sys.stderr, flush=True)
    os._exit(code)


def hang() -> None:
    time.sleep(600)


def refuse(kind: str) -> None:
    raise {"BuildError": BuildError, "DeviceUnavailable": DeviceUnavailable, "KeyError": KeyError}[kind]("no such kernel")


def _build_engine(graph: str, engine: str, target: str, image_shape: list[int]) -> None:
    """Stand for a backend whose library crashes while it builds."""
    end_by("SIGSEGV")


def _run_engine(engine: str, inputs: str, outputs: str) -> None:
    """Stand for a runtime that crashes at a file."""
    end_by("SIGSEGV")


def _try_graph(graph: str, precision: str, image_shape: list[int]) -> None:
    """Stand for a file that ONNX Runtime never finishes to open."""
    hang()


def fill(number: int) -> None:
    raise OSError(number, os.strerror(number), "engine.onnx")


def take_all_memory() -> None:
    bytearray(1 << 62)
