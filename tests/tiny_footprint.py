"""Start, memory and energy of an engine, made up for tests of what is said of them."""

from bonsai.stages.measurement.footprint import Footprint


def a_footprint(**figures: object) -> Footprint:
    """Return a footprint of which some figures are others."""
    facts = {"start_s": 0.3, "load_s": 0.01, "first_s": 0.002, "warm_s": 0.005, "before_mb": 60.0, "peak_mb": 72.0, "memory_mb": 12.0}
    return Footprint.model_validate({"processes": 3, **facts, "energy_mj": 5.0, "meter": "RAPL, the whole CPU", **figures})
