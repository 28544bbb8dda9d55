"""Networks that Bonsai refuses, leaves whole or leaves in float, and why. The tests run each, and `docs/limits.md` is written from this table.

python tests/limits.py      # docs/limits.md, from the checkout; about a minute

`tests/integration/test_limits_page.py` runs every row and compares what is told with the page.
"""

import re
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from walking import Told, inspected, simulated, walked

PAGE = Path(__file__).parents[1] / "docs" / "limits.md"
WORKS, FLOAT, WHOLE, REFUSED = "works", "float", "left whole", "refused"
SECTIONS = {
    REFUSED: (
        "Refused before training",
        "The run ends with exit code 2 and one message, before anything is trained. `bonsai run RECIPE --dry-run` shows the message within seconds.",
    ),
    WHOLE: (
        "Left whole",
        "The network is compressed, but the channels of some groups are not pruned. The dry run names these groups. The table quotes the first one.",
    ),
    FLOAT: (
        "Left in float",
        "The network is pruned and quantised, but some convolutions or matrix products (the table counts both as products) have no INT8 form. "
        "They stay in float. This costs latency, which the gates judge.",
    ),
    WORKS: ("Works", "These networks are compressed like any other. They are listed because such tools often get them wrong. Each has a test."),
}
HEAD = """# Limits: which networks are refused or only partly compressed, and why
<!-- Written by `python tests/limits.py`: change the table in that file, not this page. -->

Each row is a small network that a test takes through the same steps as a run. The last column quotes Bonsai;
`…` stands for numbers that differ between machines.
After each change Bonsai compares the new network with the one that you gave it. If their outputs differ, it refuses the network or leaves that part unchanged.
For real networks, from timm and torchvision, see [zoo.md](zoo.md).
"""


class Limit(NamedTuple):
    """A network, and what must become of it.

    Attributes:
        what: The network, in a line.
        run: Takes it through its steps.
        must: Kinds of `Told` that are right.
        says: Words that the message must hold.
    """

    what: str
    run: "partial[Told]"
    must: tuple[str, ...]
    says: tuple[str, ...] = ()

    def fault(self, told: Told) -> str:
        """Return what is wrong with what was told, empty where nothing is."""
        if told.kind not in self.must:
            return f"{told.kind}, must be {' or '.join(self.must)}: {told.message}"
        missing = [words for words in self.says if words not in told.message]
        return f"nothing is said of {', '.join(missing)}: {told.message}" if missing else ""


def _harder(name: str) -> str:
    return f"harder_networks:{name}"


LIMITS: Mapping[str, Limit] = {
    # what asks for the mode
    "TrainingNoise": Limit("noise is added in training, not in evaluation", partial(walked, "TrainingNoise", float_too=True), (WORKS,)),
    "FunctionalDropout": Limit("`torch.dropout(x, p, self.training)`", partial(walked, "FunctionalDropout"), (WORKS,)),
    "FusedNorm": Limit("a BatchNorm with its activation in one module, which asks `self.training`", partial(walked, "FusedNorm"), (WORKS, FLOAT)),
    "DropPath": Limit("stochastic depth: a tensor filled with random numbers in training", partial(simulated, _harder("DropPath")), (WORKS,)),
    "AlwaysNoise": Limit("noise is added in evaluation too", partial(simulated, _harder("AlwaysNoise")), (REFUSED,), ("in evaluation",)),
    "AlwaysDropout": Limit("`F.dropout(x)` without `training=self.training`", partial(simulated, _harder("AlwaysDropout")), (REFUSED,), ("in evaluation",)),
    "BatchStatistics": Limit(
        "a BatchNorm without running statistics: logits depend on the other images", partial(simulated, _harder("BatchStatistics")), (REFUSED,)
    ),
    # one layer, several calls
    "SharedConvolution": Limit("one convolution called twice, a BatchNorm behind each call", partial(simulated, "SharedConvolution"), (WORKS, FLOAT, WHOLE)),
    "Siamese": Limit("one block called on an image and on its mirror", partial(simulated, "Siamese"), (WORKS, FLOAT, WHOLE)),
    "SharedBatchNorm": Limit("one BatchNorm called behind two convolutions", partial(simulated, _harder("SharedBatchNorm")), (WORKS, FLOAT, WHOLE)),
    # what acts beside forward
    "Hooked": Limit("a forward hook that changes the output", partial(simulated, "Hooked"), (REFUSED, WHOLE, WORKS)),
    "PreHooked": Limit("a forward hook that changes the input", partial(simulated, _harder("PreHooked")), (REFUSED, WHOLE, WORKS)),
    "OldWeightNorm": Limit("`torch.nn.utils.weight_norm`: the weight is computed by a hook", partial(simulated, _harder("OldWeightNorm")), (REFUSED,)),
    "NewWeightNorm": Limit("a parametrised weight", partial(simulated, _harder("NewWeightNorm")), (REFUSED, WORKS, FLOAT, WHOLE)),
    "SpectralNorm": Limit("`spectral_norm`, whose state changes in training", partial(simulated, _harder("SpectralNorm")), (WHOLE,), ("mv, vdot",)),
    # what the quantiser does not know
    "ChannelAttention": Limit("a 1-D convolution over channels (ECA)", partial(walked, "ChannelAttention"), (WHOLE,)),
    "AttentionPool": Limit("`nn.MultiheadAttention`", partial(walked, "AttentionPool"), (FLOAT,)),
    "ZeroAttention": Limit("`nn.MultiheadAttention` with `add_zero_attn`", partial(inspected, _harder("ZeroAttention")), (WHOLE,), ("add_zero_attn",)),
    "SplitTokens": Limit("hand-written attention; one layer gives queries, keys and values", partial(walked, _harder("SplitTokens")), (FLOAT, WHOLE)),
    "CosineHead": Limit("a head that is a product with a normalised parameter", partial(walked, "CosineHead"), (FLOAT, WHOLE)),
    "ReflectPadding": Limit("a convolution that pads by reflection", partial(walked, "ReflectPadding"), (FLOAT, WHOLE)),
    "Standardised": Limit("a subclass of a convolution that standardises its weight", partial(walked, _harder("Standardised")), (FLOAT, WHOLE, WORKS)),
    "Factorised": Limit("1x7 and 7x1 convolutions", partial(simulated, "Factorised"), (WORKS,)),
    # state
    "HiddenMask": Limit("state outside the `state_dict`, random in every build", partial(inspected, "HiddenMask"), (REFUSED,), ("mask",)),
    "HiddenBuffer": Limit("a buffer with `persistent=False`, random in every build", partial(inspected, _harder("HiddenBuffer")), (REFUSED,), ("mask",)),
    "InPlaceInput": Limit("the input is normalised in place", partial(simulated, "InPlaceInput", shape=(1, 16, 16)), (WORKS,)),
    "NoCopy": Limit("a computed tensor is kept as an attribute: `copy.deepcopy` refuses it", partial(inspected, _harder("NoCopy")), (REFUSED,)),
    # channels that are mixed
    "Shuffled1": Limit("a channel shuffle before 1 block", partial(inspected, "Shuffled", {"depth": 1}), (WORKS,)),
    "Shuffled8": Limit("a channel shuffle before 8 blocks", partial(inspected, "Shuffled", {"depth": 8}), (WORKS,)),
    "Shuffled16": Limit("a channel shuffle before 16 blocks", partial(inspected, "Shuffled", {"depth": 16}), (WORKS,)),
    "ShuffleUnit": Limit("the halves of the channels swap places (ShuffleNet)", partial(simulated, _harder("ShuffleUnit")), (WORKS, WHOLE, FLOAT)),
    "shufflenet": Limit("torchvision's `shufflenet_v2_x0_5`", partial(inspected, _harder("shufflenet"), shape=(3, 32, 32)), (WORKS,)),
    "SplitDepthwise": Limit("a depthwise convolution on a part of the channels (EdgeNeXt)", partial(inspected, _harder("SplitDepthwise")), (WORKS, WHOLE)),
    "Aggregated": Limit("grouped convolutions on queries, keys and values (EfficientViT)", partial(simulated, _harder("Aggregated")), (WHOLE, FLOAT, WORKS)),
    "Mixed": Limit("paths mixed by parameters of the architecture", partial(inspected, _harder("Mixed")), (WORKS, WHOLE, REFUSED)),
    # code that raises
    **{
        f"Raises {error}": Limit(
            f"forward raises {name}", partial(inspected, "Raises", {"error": error}, shape=(3, 32, 32)), (REFUSED,), ("hard_networks.py", *words)
        )
        for error, name, words in (
            ("assert", "AssertionError", ("expected 224x224 images",)),
            ("index", "IndexError", ()),
            ("key", "KeyError", ("head",)),
            ("attribute", "AttributeError", ("no_such",)),
            ("zero", "ZeroDivisionError", ()),
        )
    },
    "RaisesItsOwn": Limit(
        "forward raises an exception of its own kind", partial(inspected, _harder("RaisesItsOwn")), (REFUSED,), ("harder_networks.py", "not calibrated")
    ),
    "RaisesInTraining": Limit(
        "forward raises only in training", partial(inspected, _harder("RaisesInTraining")), (REFUSED,), ("harder_networks.py", "targets")
    ),
    "raises_at_once": Limit("the factory raises", partial(inspected, _harder("raises_at_once")), (REFUSED,), ("harder_networks.py", "neck")),
    "TwoOutputs": Limit("a second output, in training only", partial(inspected, _harder("TwoOutputs")), (REFUSED,)),
    "Probabilities": Limit("a softmax at its end", partial(inspected, _harder("Probabilities")), (REFUSED,), ("probabilities",)),
    **{
        name: Limit(what, partial(inspected, _harder(name)), (REFUSED,), ("wrapper",))
        for name, what in (("in_parallel", "`DataParallel`"), ("compiled", "`torch.compile`"), ("scripted", "`torch.jit.script`"))
    },
    "DropPathModule": Limit("stochastic depth in a module of its own", partial(simulated, _harder("DropPathModule")), (WORKS,)),
    "keep fc": Limit(
        "`prune.keep: [fc]`, whose channels are the logits and never pruned",
        partial(inspected, "Plain", **{"prune.keep": ["fc"]}),
        (REFUSED, WORKS),
        ("prune.keep", "fc"),
    ),
}


def summary(told: Told) -> str:
    """Return the words of the page: a message's first line, and what was given; without paths and measured numbers, which differ by machine."""
    lines = [line.strip() for line in told.message.splitlines()]
    given = [line.removeprefix("given:").strip() for line in lines if line.startswith("given:")]
    text = "; ".join([*lines[:1], *given[:1]])
    return re.sub(r"\d+\.\d+(e[+-]?\d+)?%?", "…", re.sub(r"(/[\w.+-]+)+/([\w-]+\.\w+)", r"\2", text))


def row_of(name: str, told: Told) -> str:
    """Return the line of the page that tells what became of a network."""
    return f"- {LIMITS[name].what}" if told.kind == WORKS else f"| {LIMITS[name].what} | {_cell(summary(told))} |"


def page_of(told: Mapping[str, Told]) -> str:
    """Return the page, from what every row was told."""
    lines = [HEAD]
    for kind, (title, about) in SECTIONS.items():
        rows = [row_of(name, found) for name, found in told.items() if found.kind == kind]
        if rows:
            lines += [f"## {title}", about, "", *([] if kind == WORKS else ["| network | Bonsai says |", "|---|---|"]), *rows, ""]
    return "\n".join(lines).rstrip() + "\n"


def section_of(page: str, kind: str) -> list[str]:
    """Return the lines of the page below the heading of a kind."""
    _, _, rest = page.partition(f"\n## {SECTIONS[kind][0]}\n")
    return rest.partition("\n## ")[0].splitlines()


def _cell(text: str) -> str:
    for mark, written in (("|", "\\|"), ("<", "&lt;"), ("*", "\\*"), ("_", "\\_"), ("[", "\\["), ("`", "'")):
        text = text.replace(mark, written)
    return text


def main() -> None:
    """Run every row and write the page; a row that is not as it must be is left out, and the command fails."""
    told, wrong = {}, []
    for name, limit in LIMITS.items():
        try:
            told[name] = limit.run()
        except Exception as error:  # a fault of Bonsai's, which a test of the same name shows whole
            wrong.append(f"{name}: {type(error).__name__}: {error}")
        else:
            if fault := limit.fault(told[name]):
                wrong.append(f"{name}: {fault}")
                del told[name]
    PAGE.write_text(page_of(told), encoding="utf-8")
    print(PAGE)
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
