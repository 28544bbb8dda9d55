"""The explanation of a package: what `bonsai explain --json` prints."""

from typing import Literal

from bonsai.profiles.located_yaml import Record
from bonsai.stages.explanation.faults import Kind

Place = Literal["engine", "model.onnx", "network"]
"""Where a fault is: in the engine alone, in the ONNX file that it was made of, or in the network that was trained."""


class Finding(Record):
    """A layer that stands out.

    Attributes:
        layer: Its name.
        kind: Kind of the fault.
        place: Where the fault is.
        seen: By what it was seen, a sentence about the layer.
        do: What to do, or to set in the recipe.
    """

    layer: str
    kind: Kind
    place: Place
    seen: str
    do: str

    @property
    def sentence(self) -> str:
        """All of it, in one line."""
        where = self.place if self.place == "model.onnx" else f"the {self.place}"
        return f"{self.layer}: {self.kind} in {where}: {self.seen}. Do: {self.do}"


class LayerRow(Record):
    """One layer. Errors are differences of its output over the size of its output; None where they are not known.

    Attributes:
        op: Operator in ONNX.
        dense_us: Microseconds in the dense reference engine, under the profiler as all of them.
        float_us: In an engine of the pruned network in float.
        engine_us: In the package's engine.
        kernels: What the engine computes it with; empty where it is part of another layer's kernel.
        simulated: Error between the fake-quantised network in torch and the ONNX file, given the same input.
        rounding: Error that rounding adds, given the same input: the ONNX file beside the float network.
        engine: Error that the engine adds, given the same input: the engine beside the ONNX file.
        reached: Error of its output beside the float network's, added and inherited.
        effect: How far the network's outputs move, over their size, if this layer alone is rounded.
    """

    name: str
    op: str
    dense_us: float | None = None
    float_us: float | None = None
    engine_us: float | None = None
    kernels: tuple[str, ...] = ()
    simulated: float | None = None
    rounding: float | None = None
    engine: float | None = None
    reached: float | None = None
    effect: float | None = None


class Explanation(Record):
    """Why a package is slow, and where its accuracy was lost.

    Attributes:
        package: Name of the package.
        precision: Precision of its engine.
        images: Number of golden inputs that everything was run on.
        layers: In order of execution.
        findings: Layers that stand out, what weighs most first; empty for a clean package.
        worth_a_try: What may make a sound engine faster, one sentence each.
        outputs: Error at the network's outputs by step: "simulated", "rounding", "engine", and "both" of the last two.
        accuracy: How the accuracy fell from step to step, one sentence each.
        notes: What could not be looked at, and why; what was compared how.
    """

    package: str
    precision: str
    images: int
    layers: tuple[LayerRow, ...]
    findings: tuple[Finding, ...]
    worth_a_try: tuple[str, ...]
    outputs: dict[str, float]
    accuracy: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """The answer in a sentence."""
        if not self.findings:
            most = max(self.layers, key=lambda layer: layer.effect or 0.0)
            return "No layer stands out." + (f" Most of the error comes from {most.name}: {most.effect:.1%} of the outputs." if most.effect else "")
        names = dict.fromkeys(finding.layer for finding in self.findings)
        return f"{len(names)} {'layer stands' if len(names) == 1 else 'layers stand'} out: {', '.join(names)}."
