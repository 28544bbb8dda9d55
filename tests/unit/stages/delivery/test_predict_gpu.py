"""An engine of TensorRT in `predict.py`, with stand-ins for the library and for CUDA's driver: which pointers and sizes they are given."""

import ctypes
import shutil
import subprocess
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_package import needs

from bonsai.stages.delivery.predict import engines
from bonsai.stages.delivery.predict.engines import Refused, open_engine

DRIVER = """
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
int fails = 0;
int cuInit(unsigned flags) { return flags; }
int cuDeviceGet(int *device, int ordinal) { *device = 7; return ordinal; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)0x51; return device != 7; }
int cuCtxSetCurrent(void *context) { return context != (void *)0x51; }
int cuMemAlloc_v2(uint64_t *place, size_t size) { *place = (uint64_t)malloc(size); return fails; }
int cuMemFree_v2(uint64_t place) { free((void *)place); return 0; }
int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t size) { memcpy((void *)to, from, size); return 0; }
int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t size) { memcpy(to, (void *)from, size); return 0; }
"""
MANIFEST = {"profile": {"target": {"runtime": "tensorrt", "batch": 4}}, "compatibility": needs("a10", device="A10").model_dump()}

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for the stand-in of CUDA's driver")


class Doubling:
    """An engine that doubles its input and sums each sample, read from and written to the addresses that it is told."""

    num_io_tensors = 2

    def __init__(self, batch: int) -> None:
        self.batch, self.places, self.shapes = batch, dict[str, int](), list[tuple[int, ...]]()

    def get_tensor_name(self, place: int) -> str:
        return ("logits", "input")[place]

    def create_execution_context(self) -> "Doubling":
        return self

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        assert name == "input"
        self.shapes.append(shape)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self.shapes[-1][0], 1) if name == "logits" else (self.batch, 3)

    def set_tensor_address(self, name: str, place: int) -> None:
        self.places[name] = place

    def execute_async_v3(self, stream: int) -> bool:
        given, found = (
            np.ctypeslib.as_array(ctypes.cast(self.places[name], ctypes.POINTER(ctypes.c_float)), (self.shapes[-1][0], width))
            for name, width in (("input", 3), ("logits", 1))
        )
        found[:] = 2 * given.sum(1, keepdims=True)
        return stream == 0


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("driver")
    (folder / "driver.c").write_text(DRIVER)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "driver.so", folder / "driver.c"], check=True, capture_output=True)
    return ctypes.CDLL(str(folder / "driver.so"))


@pytest.fixture
def opened(driver: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what opens an engine whose batch is open (-1) or fixed."""

    def open_one(batch: int) -> tuple[engines.Run, Doubling]:
        engine = Doubling(batch)
        logger = SimpleNamespace(ERROR=1)
        library = SimpleNamespace(
            Runtime=lambda _: SimpleNamespace(deserialize_cuda_engine=lambda plan: engine if plan == b"plan" else None),
            Logger=type("Logger", (), {"ERROR": logger.ERROR, "__init__": lambda self, level: None}),
        )
        monkeypatch.setattr(engines, "_import", lambda module, needed: library)
        monkeypatch.setattr(engines.ctypes, "CDLL", lambda name: driver)
        return open_engine(b"plan", MANIFEST), engine

    return open_one


@pytest.mark.parametrize("batch", [-1, 4])
def test_inputs_and_outputs_are_copied_whole(opened: Any, batch: int) -> None:
    run, engine = opened(batch)
    for count in (1, 3, 9):
        inputs = np.random.default_rng(count).standard_normal((count, 3)).astype(np.float32)
        assert np.allclose(run(inputs), 2 * inputs.sum(1, keepdims=True))
    assert {shape[0] for shape in engine.shapes} == ({1, 3, 9} if batch == -1 else {4})


def test_an_engine_that_does_not_load_is_told(opened: Any) -> None:
    opened(-1)
    with pytest.raises(Refused, match="the engine cannot be loaded here") as refusal:
        open_engine(b"another", MANIFEST)
    assert refusal.value.code == 5


def test_what_the_driver_refuses_is_named(opened: Any, driver: ctypes.CDLL) -> None:
    run, _ = opened(-1)
    ctypes.c_int.in_dll(driver, "fails").value = 2
    try:
        with pytest.raises(Refused, match=r"CUDA's driver refuses cuMemAlloc_v2\n  given:   error 2"):
            run(np.zeros((1, 3), np.float32))
    finally:
        ctypes.c_int.in_dll(driver, "fails").value = 0
