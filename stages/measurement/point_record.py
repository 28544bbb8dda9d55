"""What was measured at a point of a profile."""

from bonsai.profiles.located_yaml import Record
from bonsai.stages.measurement.footprint import Footprint
from bonsai.stages.measurement.latency import Latency


class AtPoint(Record):
    """The dense engine and another one at a point: another batch size or number of threads than the target's.

    Attributes:
        point: Label of the point.
        batch: Images per inference there.
        threads: Threads that the runtime may use there.
        dense: Latency of the dense engine, timed in turns.
        engine: Latency of the engine.
        footprint: Start, memory and energy of the engine there, where it was run alone.
    """

    point: str
    batch: int
    threads: int
    dense: Latency
    engine: Latency
    footprint: Footprint | None = None
