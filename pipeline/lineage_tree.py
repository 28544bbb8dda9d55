"""`bonsai show`: what an artifact or a package was made of, as a tree."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.tree import Tree

from profiles.errors import ConfigError, describe
from profiles.source import Record
from stages.errors import VerificationError
from stages.lineage import parents_of
from stages.manifest import MANIFEST

MANY = 3
"""Most origins of one stage that are drawn one by one."""


class Node(Record):
    """One artifact, or the package that was made of them all.

    Attributes:
        address: ``stage/key``, or the package's name.
        seconds: Wall time of the stage; 0 for a package.
        figures: The main ones, for people; empty where the artifact is not in the store.
        made_of: Addresses of other nodes.
    """

    address: str
    seconds: float
    figures: str
    made_of: tuple[str, ...]

    @property
    def stage(self) -> str:
        """Name of the stage, or "package" for a package."""
        return self.address.partition("/")[0]


class Family(Record):
    """A result and everything that it was made of, the result first."""

    nodes: tuple[Node, ...]


def read_family(what: str, store: Path) -> Family:
    """Return the lineage of what the user named.

    Args:
        what: Folder of an artifact or of a package; or a key, the beginning of one, or ``stage/key``, of an artifact in the store.
        store: Folder of the artifacts.

    Raises:
        ConfigError: Nothing, or more than one thing, is meant.
        VerificationError: A manifest is broken.
    """
    folder = Path(what) if (Path(what) / MANIFEST).is_file() else _by_key(what, store)
    facts = _read(folder)
    if "lineage" in facts:  # a package: what it was made of lies in its manifest, whether the store is at hand or not
        passed = sum(gate.get("verdict") == "met" for gate in facts["gates"])
        top = Node(address=facts["name"], seconds=0, figures=f"{passed} of {len(facts['gates'])} gates met", made_of=_roots(facts["lineage"]))
        return Family(nodes=(top, *(_ancestor(ancestor, store) for ancestor in facts["lineage"])))
    root, waiting, nodes = folder.resolve().parent.parent, [f"{folder.resolve().parent.name}/{folder.resolve().name}"], dict[str, Node]()
    while waiting:
        address = waiting.pop(0)
        if address not in nodes:
            nodes[address] = _node(address, root)
            waiting += nodes[address].made_of
    return Family(nodes=tuple(nodes.values()))


def draw(family: Family) -> Tree:
    """Return the tree: a chain of one stage is one branch, many origins of one stage are summed, what stands further up is not drawn again."""
    nodes, drawn = {node.address: node for node in family.nodes}, set[str]()
    root = family.nodes[0]
    tree = Tree(_label(root.address, root.seconds, root.figures), highlight=False)
    _grow(tree, root, nodes, drawn)
    return tree


def _grow(tree: Tree, node: Node, nodes: Mapping[str, Node], drawn: set[str]) -> None:
    by_stage: dict[str, list[Node]] = {}
    for address in node.made_of:
        if address in nodes:
            by_stage.setdefault(nodes[address].stage, []).append(nodes[address])
    for stage, members in by_stage.items():
        if len(members) > MANY:
            tree.add(_label(f"{stage} x {len(members)}", sum(member.seconds for member in members), ""))
            drawn.update(member.address for member in members)
            continue
        for member in members:
            if member.address in drawn:
                tree.add(f"{member.address}  (above)")
                continue
            chain = _chain(member, nodes, drawn)
            drawn.update(link.address for link in chain)
            seconds, more = sum(link.seconds for link in chain), f" and {len(chain) - 1} before it" if len(chain) > 1 else ""
            branch = tree.add(_label(member.address + more, seconds, member.figures))
            rest = tuple(dict.fromkeys(address for link in chain for address in link.made_of if nodes.get(address) not in chain))
            _grow(branch, member.model_copy(update={"made_of": rest}), nodes, drawn)


def _chain(node: Node, nodes: Mapping[str, Node], drawn: set[str]) -> list[Node]:
    """Return a node and those before it of the same stage, each made of the next."""
    chain = [node]
    while before := [nodes[a] for a in chain[-1].made_of if a in nodes and nodes[a].stage == node.stage and a not in drawn]:
        chain.append(before[0])
    return chain


def _label(name: str, seconds: float, figures: str) -> str:
    took = f"  {seconds:.1f} s" if seconds else ""
    return f"{name}{took}" + (f"  {figures}" if figures else "")


def _by_key(what: str, store: Path) -> Path:
    stage, _, key = what.rpartition("/")
    found = sorted(file.parent for file in store.glob(f"*/{glob_escape(key)}*/{MANIFEST}") if not stage or file.parent.parent.name == stage) if key else []
    found = [folder for folder in found if folder.parent.name != "packages" or folder.name == key]
    if len(found) == 1:
        return found[0]
    problem = f"{len(found)} artifacts begin like this" if found else "neither a folder with a manifest nor a key of the store"
    given = f"{what}: {', '.join(f'{folder.parent.name}/{folder.name}' for folder in found[:6])}" if found else f"{what}, store {store}"
    fix = "give more of the key" if found else "name the store: --store DIR; or the folder that `bonsai run` names at its end"
    raise ConfigError(describe(problem, given=given, allowed="folder of an artifact or package, or a key or its beginning", fix=fix))


def glob_escape(text: str) -> str:
    """Return a text that a glob takes as it is."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in text)


def _read(folder: Path) -> dict[str, Any]:
    try:
        facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VerificationError(describe(f"{folder / MANIFEST}: cannot be read", given=error, allowed="a manifest", fix="run `bonsai run` again")) from error
    if not isinstance(facts, dict) or (not facts.keys() >= {"name", "gates", "lineage"} and not facts.keys() >= {"stage", "record", "inputs", "seconds"}):
        raise VerificationError(
            describe(f"{folder / MANIFEST}: no manifest of Bonsai's", given=folder, allowed="an artifact or a package", fix="check the path")
        )
    return facts


def _node(address: str, root: Path) -> Node:
    if not (root / address / MANIFEST).is_file():
        return Node(address=address, seconds=0, figures="not in the store any more", made_of=())
    facts = _read(root / address)
    return Node(address=address, seconds=facts["seconds"], figures=main_figures(facts["stage"], facts["record"]), made_of=parents_of(root / address))


def _ancestor(facts: Mapping[str, Any], store: Path) -> Node:
    address = str(facts["artifact"])
    there = (store / address / MANIFEST).is_file()
    figures = _node(address, store).figures if there else ""
    return Node(address=address, seconds=facts["seconds"], figures=figures, made_of=tuple(facts["made_from"]))


def _roots(lineage: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return what nothing else in a lineage was made of."""
    used = {address for ancestor in lineage for address in ancestor["made_from"]}
    return tuple(str(ancestor["artifact"]) for ancestor in lineage if ancestor["artifact"] not in used)


def main_figures(stage: str, record: Mapping[str, Any]) -> str:
    """Return what is worth knowing of an artifact, in a few words; empty for a stage without such figures."""
    return FIGURES[stage](record) if stage in FIGURES else ""


def _trained(record: Mapping[str, Any]) -> str:
    last = record["history"][-1] if record["history"] else None
    return f"epoch {last['epoch']:.4g}, validation top-1 {last['validation_top1']:.2%}" if last else f"step {record['step']}"


def _quantised(record: Mapping[str, Any]) -> str:
    kept = record["quantization"]["kept"]
    return f"{kept}, validation top-1 {record['metrics'][f'validation_top1_{kept}']:.2%}"


def _measured(record: Mapping[str, Any]) -> str:
    row = next(row for row in record["rows"] if row["shipped"])
    part, top1 = row["accuracy"]["part"], row["accuracy"]["top1"]
    return f"{row['precision']} shipped, {part} top-1 {top1:.2%}, p50 {row['latency']['p50']:.3f} ms {row['latency']['source']}"


FIGURES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "prepare": lambda record: f"{record['name']}, {sum(record['sizes'].values())} images, {len(record['classes'])} classes",
    "characterize": lambda record: str(record["source"]),
    "warmup": _trained,
    "prune": lambda record: f"{sum(map(len, record['kept'].values()))} channels kept in {len(record['kept'])} groups",
    "recover": _trained,
    "quantize": _quantised,
    "sketch": lambda record: f"untrained, {record['parameters'] / 1e3:.0f} k parameters",
    "try_open": lambda record: "overflows untrained" if record["difference"] is None else f"differs from torch by {record['difference']:.2g} of the spread",
    "export": lambda record: f"{record['dialect']} {record['float_type']}, {record['parameters'] / 1e3:.0f} k parameters, {record['macs'] / 1e6:.1f} M MACs",
    "compile": lambda record: f"{record['runtime']} {record['precision']}, {record['parameters'] / 1e3:.0f} k parameters",
    "race": lambda record: f"{len(record['lanes'])} timed against {record['reference']['p50']:.3f} ms",
    "measure": _measured,
    "assess": _measured,
    "challenge": lambda record: f"against {record['against']['name']}, drop {record['against']['drop'][0]:+.4f}",
    "package": lambda record: str(record["name"]),
}
