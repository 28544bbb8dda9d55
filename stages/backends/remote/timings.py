"""A timing on its way from the device: samples are arrays, and all else that it tells is JSON, whatever fields it has."""

from typing import Any, get_type_hints

from pydantic import TypeAdapter

from bonsai.stages.backends.device import Timing
from bonsai.stages.backends.remote.frames import pack, unpack

SAMPLES = "samples"


def written(timing: Timing) -> tuple[dict[str, Any], bytes]:
    """Return a timing as a value that JSON can hold, and arrays."""
    facts = {name: adapter.dump_python(getattr(timing, name), mode="json") for name, adapter in _told().items()}
    return {"engines": list(timing.samples), "facts": facts}, pack(list(timing.samples.values()))


def read(value: dict[str, Any], body: bytes) -> Timing:
    """Return the timing that `written` was given."""
    facts = {name: adapter.validate_python(value["facts"][name], strict=False) for name, adapter in _told().items()}
    return Timing(samples=dict(zip(value["engines"], unpack(body), strict=True)), **facts)


def _told() -> dict[str, TypeAdapter[Any]]:
    return {name: TypeAdapter(kind) for name, kind in get_type_hints(Timing).items() if name != SAMPLES}
