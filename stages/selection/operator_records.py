"""Records of the operators of a network, and what they cost at given widths. No torch: `operators.py` reads them from a network."""

from collections.abc import Collection, Iterable

from bonsai.profiles.located_yaml import Record
from bonsai.profiles.operator_class import OperatorClass
from bonsai.stages.pruning.groups import Widths

Block = tuple[str, ...]
"""The groups inside of a residual block that may be left out."""


class Operator(Record):
    """One convolution, matrix product, or other operator that costs time.

    Attributes:
        module: Name of the module that computes it, or of the node with ``()`` where that calls a function.
        inputs: Groups that the input channels come from, each with its number of positions per channel
            (above 1 for attention heads, or behind a flatten).
        fixed_inputs: Input channels of no group.
        outputs: The same of the output channels; empty where they follow the inputs.
        fixed_outputs: Output channels of no group; 0 where they follow the inputs.
        full_widths: Dense width of every group named here.
        quantized: Whether the quantiser takes it, unless it is asked not to.
        block: Groups inside of the residual block that it is part of, where that may be left out: it is not there without their channels.
    """

    module: str
    operator: OperatorClass
    inputs: tuple[tuple[str, int], ...]
    fixed_inputs: int
    outputs: tuple[tuple[str, int], ...]
    fixed_outputs: int
    full_widths: tuple[tuple[str, int], ...]
    quantized: bool = True
    block: Block = ()

    @property
    def groups(self) -> frozenset[str]:
        """The groups that it depends on."""
        return frozenset(name for name, _ in (*self.inputs, *self.outputs))

    def channels(self, widths: Widths) -> tuple[int, int]:
        """Return (input, output) channels at the given widths; none of an operator that is left out with its block."""
        if not self.is_there(widths):
            return 0, 0
        ci = self.fixed_inputs + sum(widths[group] * positions for group, positions in self.inputs)
        if self.operator.one_axis:
            return ci, self.operator.outputs(ci)
        return ci, self.fixed_outputs + sum(widths[group] * positions for group, positions in self.outputs)

    def is_there(self, widths: Widths) -> bool:
        """Whether the block that it is part of is not left out."""
        return all(widths.get(group, 1) for group in self.block)

    def macs(self, widths: Widths) -> int:
        """Return the multiply-accumulates for one image, at the given widths."""
        return self.operator.macs(*self.channels(widths))


class Unseen(Record):
    """An operator with matrix products that no operator class describes.

    Attributes:
        macs: Multiply-accumulates for one image.
    """

    name: str
    macs: int


def blocks_in(operators: Iterable[Operator]) -> tuple[Block, ...]:
    """Return the blocks that operators are part of, in order."""
    return tuple(dict.fromkeys(operator.block for operator in operators if operator.block))


def whole_blocks(widths: Widths, blocks: Iterable[Block]) -> Widths:
    """Return widths at which every block of which a group keeps nothing is left out as a whole."""
    gone = {group for block in blocks if any(widths[group] == 0 for group in block) for group in block}
    return {group: 0 if group in gone else width for group, width in widths.items()}


def with_groups(operators: Iterable[Operator], names: Collection[str]) -> tuple[Operator, ...]:
    """Return the operators with the channels of all other groups fixed; their classes stay, since a table holds those of all groups."""

    def of(operator: Operator) -> Operator:
        full = dict(operator.full_widths)
        fixed = [sum(full[name] * positions for name, positions in side if name not in names) for side in (operator.inputs, operator.outputs)]
        return operator.model_copy(
            update={
                "inputs": tuple(pair for pair in operator.inputs if pair[0] in names),
                "fixed_inputs": operator.fixed_inputs + fixed[0],
                "outputs": tuple(pair for pair in operator.outputs if pair[0] in names),
                "fixed_outputs": operator.fixed_outputs + fixed[1],
                "full_widths": tuple(pair for pair in operator.full_widths if pair[0] in names),
            }
        )

    return tuple(operator if operator.groups <= set(names) else of(operator) for operator in operators)


def count_macs_at(operators: Iterable[Operator], widths: Widths) -> int:
    """Return the multiply-accumulates of the operators for one image, at the given widths."""
    return sum(operator.macs(widths) for operator in operators)


def count_weights_at(operators: Iterable[Operator], widths: Widths) -> int:
    """Return the number of weights of the operators, without biases, at the given widths; a layer that is called twice counts once."""
    layers = {operator.module: operator for operator in operators if operator.operator.op != "matmul"}
    return sum(operator.operator.weights(*operator.channels(widths)) for operator in layers.values())


def weight_channels(operators: Iterable[Operator], widths: Widths) -> dict[str, tuple[int, int]]:
    """Return, for every layer that an exported graph holds under its name, the (input, output) channels of its weight at the given widths."""
    found = {}
    for operator in operators:
        if operator.quantized and operator.operator.op in {"conv", "conv1d", "linear"}:
            inputs, outputs = operator.channels(widths)
            found[operator.module] = (inputs // operator.operator.num_groups(inputs), outputs)
    return found
