"""Why torch's ONNX exporter refuses a network, in one sentence."""

import re

import torch

from bonsai.stages.errors import BuildError
from bonsai.stages.graph.untraceable import explain

NO_OPERATOR = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.]+)'")
NODE = re.compile(r"translating node %(\w+)")


def explain_refusal(error: BaseException, program: torch.export.ExportedProgram | None) -> str:
    """Return what the exporter could not translate, and the line of the network's own code that asks for it.

    Args:
        error: What the exporter raised; its own message is a page on how to report it.
        program: What was to be translated, if it came so far.
    """
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    told = "\n".join(str(link) for link in chain)
    missing, named = NO_OPERATOR.search(told), NODE.search(told)
    reason = f"ONNX has no operator for {missing[1]}" if missing else f"{type(chain[-1]).__name__}: {chain[-1]}"
    nodes = program.graph.nodes if program is not None and named else ()
    trace = next((node.meta.get("stack_trace") for node in nodes if named and node.name == named[1]), None)
    return explain(BuildError(f"{reason}\n{trace or ''}"))
