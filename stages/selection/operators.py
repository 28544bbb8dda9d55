"""The operators of a network as the runtime fuses them, with the groups that their channels belong to."""

from collections.abc import Iterable

from torch import fx, nn

from profiles.latency import OperatorClass
from profiles.source import Record
from stages.graph.kinds import before, is_add, is_relu
from stages.graph.trace import module_of, only_user, shape_of, trace
from stages.pruning.groups import Group, Widths

PASSED_OVER = {"identity", "flatten", "reshape", "view", "squeeze"}
"""What lies between a tensor and the operator that computed it, at no cost."""


class Operator(Record):
    """One convolution or matrix product.

    Attributes:
        inputs: Groups that the input channels come from, each with its number of positions per channel
            (above 1 behind a flatten).
        fixed_inputs: Input channels of no group.
        output: Group of the output channels, or None for fixed ones.
        fixed_outputs: Output channels where `output` is None.
        full_widths: Dense width of every group named here.
    """

    module: str
    operator: OperatorClass
    inputs: tuple[tuple[str, int], ...]
    fixed_inputs: int
    output: str | None
    fixed_outputs: int
    full_widths: tuple[tuple[str, int], ...]

    def channels(self, widths: Widths) -> tuple[int, int]:
        """Return (input, output) channels at the given widths."""
        ci = self.fixed_inputs + sum(widths[group] * factor for group, factor in self.inputs)
        return ci, self.fixed_outputs if self.output is None else widths[self.output]


def list_operators(network: nn.Module, groups: Iterable[Group], image_shape: tuple[int, int, int]) -> tuple[Operator, ...]:
    """Return the convolutions and linear layers of a dense network, in order of execution."""
    traced = trace(network, image_shape)
    groups = tuple(groups)
    found = []
    for node in traced.graph.nodes:
        module = module_of(traced, node)
        if isinstance(module, nn.Conv2d | nn.Linear):
            found.append(_operator(traced, node, module, groups))
    return tuple(found)


def count_macs_at(operators: Iterable[Operator], widths: Widths) -> int:
    """Return the multiply-accumulates of the operators for one image, at the given widths."""
    return sum(_weights(operator, widths) * operator.operator.height * operator.operator.width for operator in operators)


def count_weights_at(operators: Iterable[Operator], widths: Widths) -> int:
    """Return the number of weights of the operators, without biases, at the given widths."""
    return sum(_weights(operator, widths) for operator in operators)


def _weights(operator: Operator, widths: Widths) -> int:
    inputs, outputs = operator.channels(widths)
    return (1 if operator.operator.depthwise else inputs) * outputs * operator.operator.kernel**2


def _operator(traced: fx.GraphModule, node: fx.Node, module: nn.Conv2d | nn.Linear, groups: tuple[Group, ...]) -> Operator:
    name = str(node.target)
    output = next((g.name for g in groups if any(m.module == name and m.side == "out" for m in g.members)), None)
    inputs = tuple((g.name, len(m.indices) // g.width) for g in groups for m in g.members if m.module == name and m.side == "in")
    widths = {g.name: g.width for g in groups}
    if isinstance(module, nn.Linear):
        operator = OperatorClass(op="linear")
        total_in, total_out = module.in_features, module.out_features
    else:
        height, width = shape_of(node)[-2:]
        depthwise = module.groups > 1 and module.groups == module.in_channels == module.out_channels
        operator = OperatorClass(
            op="conv",
            kernel=module.kernel_size[0],
            stride=module.stride[0],
            height=height,
            width=width,
            depthwise=depthwise,
            epilogue=_epilogue(traced, node),
        )
        total_in, total_out = module.in_channels, module.out_channels
        if module.groups > 1 and not depthwise:  # left whole by surgery; a filter sees the inputs of its own group alone
            total_in, inputs = module.in_channels // module.groups, ()
    if operator.depthwise and output is not None:
        inputs = ((output, 1),)
    return Operator(
        module=name,
        operator=operator,
        inputs=inputs,
        fixed_inputs=total_in - sum(widths[group] * factor for group, factor in inputs),
        output=output,
        fixed_outputs=0 if output else total_out,
        full_widths=tuple((name, width) for name, width in widths.items() if name == output or name in dict(inputs)),
    )


def _epilogue(traced: fx.GraphModule, node: fx.Node) -> str:
    """Return what is fused behind a convolution; an add belongs to the last of its inputs to be computed."""
    after = only_user(node)
    if after is not None and isinstance(module_of(traced, after), nn.BatchNorm2d):
        node, after = after, only_user(after)
    if after is None:
        return "none"
    if is_relu(traced, after):
        return "relu"
    if not is_add(traced, after) or _position(traced, node) < max(_position(traced, added) for added in after.all_input_nodes):
        return "none"
    behind = only_user(after)
    return "add_relu" if behind is not None and is_relu(traced, behind) else "add"


def _position(traced: fx.GraphModule, node: fx.Node) -> int:
    return list(traced.graph.nodes).index(before(traced, node, PASSED_OVER))
