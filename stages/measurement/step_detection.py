"""The widths at which a device's kernels cost a step more: found by a sweep, since they differ by instruction set and runtime."""

from collections.abc import Callable, Sequence

import numpy as np

from bonsai.profiles.operator_class import OperatorClass

SWEEP = tuple(range(32, 97, 4))
FIXED = 64
CANDIDATES = (4, 8, 16, 32)


def detect_step(widths: Sequence[int], times: Sequence[float]) -> tuple[int, float]:
    """Return the step that explains a sweep best, and the share of the variance that it explains.

    Args:
        widths: Channels.
        times: Times of one operator at these channels, in any unit.
    """
    found = []
    for step in CANDIDATES:
        steps = np.ceil(np.array(widths) / step)
        line = np.polynomial.Polynomial.fit(steps, times, 1)
        residual = np.array(times) - line(steps)
        found.append((1 - float(residual.var() / max(np.var(times), 1e-30)), step))
    share, step = max(found)
    return step, share


def sweep_steps(classes: Sequence[OperatorClass], measure: Callable[[OperatorClass, int, int], float]) -> dict[str, tuple[int, float]]:
    """Sweep one operator of each kind over its output and its input channels.

    Args:
        classes: Those of a network. The one of middle size is swept of each kind; light operators and groups of several channels are left out.
        measure: Times an operator class at given input and output channels.

    Returns:
        Step and explained share by kind and side, such as ``conv 3x3 out``.
    """
    kinds: dict[str, list[OperatorClass]] = {}
    for cls in classes:
        if cls.is_light or cls.groups > 1 or (cls.one_axis and not cls.depthwise) or cls.precision is not None:
            continue
        name = f"{cls.op} {cls.kernel[0]}x{cls.kernel[1]}" if cls.op.startswith("conv") else cls.op
        kinds.setdefault(f"depthwise {name}" if cls.depthwise else name, []).append(cls)
    found = {}
    for kind, members in kinds.items():
        cls = sorted(members, key=lambda c: c.height * c.width)[len(members) // 2]
        if cls.depthwise:
            found[kind] = detect_step(SWEEP, [measure(cls, width, cls.outputs(width)) for width in SWEEP])
            continue
        found[f"{kind} out"] = detect_step(SWEEP, [measure(cls, FIXED, width) for width in SWEEP])
        found[f"{kind} in"] = detect_step(SWEEP, [measure(cls, width, FIXED) for width in SWEEP])
    return found
