"""`bonsai show`: what an artifact or a package was made of, as a tree."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from rich.tree import Tree

from bonsai.profiles.bounded_json import read_json
from bonsai.profiles.errors import ConfigError, describe, shorten, visible
from bonsai.profiles.located_yaml import Record
from bonsai.stages.errors import VerificationError
from bonsai.stages.store.lineage import made_from
from bonsai.stages.store.manifest import MANIFEST

MANY = 3
"""Most inputs of one stage that are drawn."""
DEEPEST = 100
"""Deepest nesting that is drawn."""
Address = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=200)]
"""Pattern of an address, ``stage/key``. It cannot lead out of the store."""
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
ADDRESSES: TypeAdapter[tuple[str, ...]] = TypeAdapter(tuple[Address, ...])


class _Read(BaseModel):
    """The part of a manifest that is read; manifests of all versions of Bonsai have it."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Gate(_Read):
    verdict: str = ""


class _Ancestor(_Read):
    artifact: Address
    seconds: Seconds
    made_from: tuple[Address, ...]


class _Package(_Read):
    name: str
    gates: tuple[_Gate, ...]
    lineage: tuple[_Ancestor, ...]


class _Artifact(_Read):
    stage: str
    figures: str = ""
    inputs: dict[str, Any]
    seconds: Seconds


class Node(Record):
    """One artifact, or the package that was made of them all.

    Attributes:
        address: ``stage/key``, or the package's name.
        seconds: Wall time of the stage; 0 for a package.
        figures: The main ones, as the stage wrote them into its manifest; empty if the artifact is not in the store.
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
    read = _read(folder)
    if isinstance(read, _Package):  # what it was made of lies in its manifest, whether the store is at hand or not
        passed = sum(gate.verdict == "met" for gate in read.gates)
        top = Node(address=read.name, seconds=0, figures=f"{passed} of {len(read.gates)} gates met", made_of=_roots(read.lineage))
        return Family(nodes=(top, *(_ancestor(ancestor, store) for ancestor in read.lineage)))
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
    _grow(tree, root, nodes, drawn, depth=1)
    return tree


def _grow(tree: Tree, node: Node, nodes: Mapping[str, Node], drawn: set[str], depth: int) -> None:
    if depth > DEEPEST:
        tree.add("... (more than is drawn)")
        return
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
            _grow(branch, member.model_copy(update={"made_of": rest}), nodes, drawn, depth + 1)


def _chain(node: Node, nodes: Mapping[str, Node], drawn: set[str]) -> list[Node]:
    """Return a node and those before it of the same stage, each made of the next."""
    chain, seen = [node], {*drawn, node.address}
    while before := [nodes[a] for a in chain[-1].made_of if a in nodes and nodes[a].stage == node.stage and a not in seen]:
        chain.append(before[0])
        seen.add(before[0].address)
    return chain


def _label(name: str, seconds: float, figures: str) -> str:
    took = f"  {seconds:.1f} s" if seconds else ""
    return visible(f"{shorten(name)}{took}" + (f"  {shorten(figures)}" if figures else ""), keep="")


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


def _read(folder: Path) -> _Package | _Artifact:
    file = folder / MANIFEST
    try:
        facts = read_json(file)
    except (OSError, ValueError) as error:
        raise VerificationError(describe(f"{file}: cannot be read", given=error, allowed="a manifest", fix="run `bonsai run` again")) from error
    kind: type[_Package | _Artifact] = _Package if isinstance(facts, dict) and "lineage" in facts else _Artifact
    try:
        return kind.model_validate(facts)
    except ValidationError as error:
        fault = error.errors()[0]
        given = f"{'.'.join(map(str, fault['loc'])) or 'the whole'} = {shorten(repr(fault['input']))}: {fault['msg']}"
        raise VerificationError(
            describe(f"{file}: no manifest of Bonsai's", given=given, allowed="the manifest of an artifact or a package", fix="check the path")
        ) from error


def _node(address: str, root: Path) -> Node:
    file = root / address / MANIFEST
    if not file.is_file():
        return Node(address=address, seconds=0, figures="not in the store any more", made_of=())
    read = _read(file.parent)
    if isinstance(read, _Package):
        problem = f"{file}: the manifest of a package, not of an artifact"
        raise VerificationError(describe(problem, given=read.name, allowed=f"the manifest of {address}", fix="name another store: --store DIR"))
    try:
        parents = ADDRESSES.validate_python(made_from(read.inputs))
    except (TypeError, ValueError) as error:  # it is not what the stage writes
        problem = f"{file}: not what the stage {shorten(read.stage)} writes"
        given = f"{type(error).__name__}: {shorten(str(error))}"
        raise VerificationError(describe(problem, given=given, allowed="a manifest as it was written", fix="run `bonsai run` again")) from error
    return Node(address=address, seconds=read.seconds, figures=read.figures, made_of=parents)


def _ancestor(ancestor: _Ancestor, store: Path) -> Node:
    there = (store / ancestor.artifact / MANIFEST).is_file()
    figures = _node(ancestor.artifact, store).figures if there else ""
    return Node(address=ancestor.artifact, seconds=ancestor.seconds, figures=figures, made_of=ancestor.made_from)


def _roots(lineage: Sequence[_Ancestor]) -> tuple[str, ...]:
    """Return what nothing else in a lineage was made of."""
    used = {address for ancestor in lineage for address in ancestor.made_from}
    return tuple(ancestor.artifact for ancestor in lineage if ancestor.artifact not in used)
