import json
from pathlib import Path

import pytest
from rich.console import Console

from bonsai.pipeline.cli.lineage_tree import Family, Node, draw, read_family
from bonsai.profiles.errors import ConfigError
from bonsai.profiles.located_yaml import Record
from bonsai.stages.errors import VerificationError
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.store.manifest import MANIFEST
from bonsai.stages.store.store import Store, stage


class Config(Record):
    value: int = 1


class Number(Artifact):
    value: int


@stage(version=1)
def seed(out_dir: Path, config: Config) -> Number:
    return Number(folder=out_dir, value=config.value)


@stage(version=1)
def grown(out_dir: Path, number: Number, before: Number | None) -> Number:
    return Number(folder=out_dir, value=number.value if before is None else before.value + 1)


def chain(store: Store, length: int) -> Number:
    first, made = store.run(seed, config=Config()), None
    for _ in range(length):
        made = store.run(grown, number=first, before=made)
    assert made is not None
    return made


def lines(family: Family) -> list[str]:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(draw(family))
    return captured.get().splitlines()


def test_an_artifact_is_found_by_folder_key_and_beginning(store: Store) -> None:
    made = chain(store, 1)
    found = [read_family(what, store.root) for what in (str(made.folder), made.key, made.key[:10], f"grown/{made.key}")]
    assert all(family == found[0] for family in found)
    assert [node.stage for node in found[0].nodes] == ["grown", "seed"]


def test_a_beginning_of_several_keys_is_refused(store: Store) -> None:
    for value in range(17):
        store.run(seed, config=Config(value=value))
    with pytest.raises(ConfigError, match=r"(?s)artifacts begin like this.*give more of the key"):
        read_family(next(a for a in "0123456789abcdef" if len(list(store.root.glob(f"seed/{a}*"))) > 1), store.root)


def test_nothing_of_this_name_is_refused(store: Store) -> None:
    with pytest.raises(ConfigError, match="neither a folder with a manifest nor a key of the store"):
        read_family("*", store.root)


def test_a_chain_of_one_stage_is_one_line(store: Store) -> None:
    family = read_family(chain(store, 4).key, store.root)
    above = Node(address="above/1", seconds=0, figures="", made_of=(family.nodes[0].address,))
    top, segments, first = lines(Family(nodes=(above, *family.nodes)))
    assert top == "above/1"
    assert "grown/" in segments
    assert "and 3 before it" in segments
    assert "seed/" in first


def test_many_of_one_stage_are_summed_and_what_is_above_is_not_drawn_again() -> None:
    seeds = tuple(Node(address=f"seed/{number}", seconds=0.5, figures="", made_of=()) for number in range(5))
    left = Node(address="left/1", seconds=1, figures="x", made_of=("right/1",))
    right = Node(address="right/1", seconds=1, figures="", made_of=())
    top = Node(address="top/1", seconds=2, figures="", made_of=(*(node.address for node in seeds), "left/1", "right/1"))
    drawn = lines(Family(nodes=(top, *seeds, left, right)))
    assert [line.strip("│├└─ ") for line in drawn] == ["top/1  2.0 s", "seed x 5  2.5 s", "left/1  1.0 s  x", "right/1  1.0 s", "right/1  (above)"]


def test_a_package_needs_no_store(tmp_path: Path) -> None:
    lineage = [
        {"artifact": "measure/1", "made_from": ["prepare/2"], "seconds": 3.0},
        {"artifact": "prepare/2", "made_from": [], "seconds": 1.0},
    ]
    (tmp_path / MANIFEST).write_text(json.dumps({"name": "one--cpu", "gates": [{"verdict": "met"}, {"verdict": "undecided"}], "lineage": lineage}))
    family = read_family(str(tmp_path), tmp_path / "nowhere")
    assert [line.strip("└─ ") for line in lines(family)] == ["one--cpu  1 of 2 gates met", "measure/1  3.0 s", "prepare/2  1.0 s"]


def test_an_origin_that_is_gone_is_said(store: Store) -> None:
    made = chain(store, 1)
    for file in store.root.glob(f"seed/*/{MANIFEST}"):
        file.unlink()
    assert read_family(made.key, store.root).nodes[1].figures == "not in the store any more"


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}'])
def test_a_broken_manifest_is_an_error(text: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(VerificationError):
        read_family(str(tmp_path), tmp_path)
