"""Files of latency tables: found by name, refused where they are damaged or of another device."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bonsai.profiles.errors import ConfigError
from bonsai.profiles.latency import Entry, LatencyTable, Origin, TableMeta
from bonsai.profiles.loader import load_profile
from bonsai.profiles.operator_class import OperatorClass
from bonsai.profiles.shared_tables import describe_origin, read_tables, require_device, require_labels, tables_of, write_tables
from bonsai.profiles.table_names import SHIPPED, find_table, list_tables

CONV = OperatorClass(op="conv", kernel=3, height=8, width=8, epilogue="relu")
PI = ("asimd", "asimddp")
ORIGIN = Origin(recipe="resnet-edge", isa=PI, cores=4, system="Linux aarch64", by="Ada", protocol="by hand", error=(0.01, 0.03))


def a_table(**changes: object) -> LatencyTable:
    facts: dict[str, object] = {
        "source": "measured",
        "device": "Raspberry Pi 5",
        "runtime": "onnxruntime",
        "runtime_version": "1.31.0",
        "precision": "int8",
        "batch": 1,
        "threads": 1,
        "step": 16,
        "clock": "c",
        "statistic": "s",
        "date": "2026-11-29",
        "origin": ORIGIN,
    }
    return LatencyTable(TableMeta.model_validate({**facts, **changes}), [Entry(operator=CONV, ci=16, co=16, p10_us=1.0, p50_us=2.0, reps=1, kernels="k")])


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own folder, with the tables of a Raspberry Pi."""
    monkeypatch.setenv("BONSAI_TABLES", str(tmp_path))
    write_tables(tmp_path / "resnet-edge--kitchen-pi.csv", [a_table(precision="fp32"), a_table()])
    return tmp_path


def test_one_file_holds_the_tables_of_all_precisions_and_where_they_are_from(own: Path) -> None:
    found = read_tables(own / "resnet-edge--kitchen-pi.csv")
    assert list(found) == ["fp32", "int8"]
    for precision, table in found.items():
        assert table.meta == a_table(precision=precision).meta
        assert table.entries == a_table().entries
    assert describe_origin(found["int8"]) == "measured elsewhere, on Raspberry Pi 5 with onnxruntime 1.31.0, 2026-11-29, by Ada"


def test_a_name_is_found_in_the_own_folder_before_the_shipped_one(own: Path) -> None:
    assert find_table("resnet-edge--kitchen-pi") == own / "resnet-edge--kitchen-pi.csv"
    shipped = next(name for name, file in list_tables().items() if file.parent == SHIPPED)
    assert find_table(shipped) == SHIPPED / f"{shipped}.csv"
    write_tables(own / f"{shipped}.csv", [a_table()])
    assert find_table(shipped) == own / f"{shipped}.csv"


def test_an_unknown_name_is_refused_with_those_there_are(own: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)no latency table of this name \(did you mean 'resnet-edge--kitchen-pi'\?\).*BONSAI_TABLES"):
        find_table("resnet-edge--kitchen-py")


def test_a_folder_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BONSAI_TABLES", str(tmp_path / "gone"))
    with pytest.raises(ConfigError, match="BONSAI_TABLES names no folder"):
        list_tables()


def test_a_path_is_a_path_wherever_the_folders_are() -> None:
    assert find_table("tables/mine.csv") == Path("tables/mine.csv")


DAMAGES: dict[str, tuple[Callable[[str], str], str]] = {
    "one digit": (lambda text: text.replace("1.000,2.000", "1.000,2.001", 1), "a damaged file of latency tables"),
    "a machine": (lambda text: text.replace("Raspberry Pi 5", "Raspberry Pi 4", 1), "a damaged file of latency tables"),
    "a cut end": (lambda text: text[: len(text) // 2], "no checksum in its last line"),
    "an old file": (lambda text: text.partition("#sha256 ")[0], "no checksum in its last line"),
    "an empty file": (lambda text: "", "no checksum in its last line"),
    "half a checksum": (lambda text: text[:-30], "a damaged file of latency tables"),
    "other ends of lines": (lambda text: text.replace("\n", "\r\n"), "a damaged file of latency tables"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused(own: Path, damage: str) -> None:
    change, message = DAMAGES[damage]
    file = own / "resnet-edge--kitchen-pi.csv"
    file.write_text(change(file.read_text()), newline="")
    with pytest.raises(ConfigError, match=message):
        read_tables(file)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "estimated"}, "not a table that was measured"),
        ({"origin": None}, "does not say on which machine"),
        ({"device": "<script>"}, "what it says of its origin cannot be shown"),
        ({"origin": ORIGIN.model_copy(update={"by": "[me](http://x.example)"})}, "what it says of its origin cannot be shown"),
    ],
)
def test_what_is_no_measured_table_of_a_machine_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    write_tables(tmp_path / "t.csv", [a_table(**changes)])
    with pytest.raises(ConfigError, match=message):
        read_tables(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("name", "by", "message"),
    [("../mine", "", "--name: no name"), ("", "", "--name: no name"), ("mine", "<b>", "--by: cannot"), (None, "a" * 101, "--by: cannot")],
)
def test_labels_that_no_reader_would_take_are_refused_before_anything_is_measured(name: str | None, by: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        require_labels(name, by)
    require_labels("resnet-edge--pi_5.b", "Ada Lovelace, née Byron")
    require_labels(None, "")


def test_two_tables_of_one_precision_are_refused(tmp_path: Path) -> None:
    write_tables(tmp_path / "t.csv", [a_table(), a_table()])
    with pytest.raises(ConfigError, match="two tables of one precision"):
        read_tables(tmp_path / "t.csv")
    write_tables(tmp_path / "a.csv", [a_table()])
    write_tables(tmp_path / "b.csv", [a_table()])
    with pytest.raises(ConfigError, match=r"profile cortex-a76: two latency tables at int8\n  given:   .*a\.csv, .*b\.csv"):
        tables_of(load_profile("cortex-a76", {"tables": [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runtime": "openvino"}, r"(?s)measured under other conditions.*runtime = openvino.*allowed: onnxruntime"),
        ({"runtime": "onnxruntime/openvino"}, r"(?s)measured under other conditions.*allowed: onnxruntime"),
        ({"threads": 4}, r"(?s)measured under other conditions.*threads = 4"),
        ({"batch": 8}, r"(?s)measured under other conditions.*batch = 8"),
        ({"runtime_version": "1.12.0"}, r"(?s)another version of the runtime.*onnxruntime 1\.12\.0"),
    ],
)
def test_a_table_of_another_runtime_is_refused(own: Path, changes: dict[str, object], message: str) -> None:
    write_tables(own / "mine.csv", [a_table(**changes)])
    with pytest.raises(ConfigError, match=message):
        tables_of(load_profile("cortex-a76", {"tables": ["mine"]}))


def test_a_profile_finds_its_tables_by_name_or_beside_its_file(own: Path, tmp_path: Path) -> None:
    beside = tmp_path / "profiles"
    beside.mkdir()
    write_tables(beside / "near.csv", [a_table(precision="fp32")])
    write_tables(own / "far.csv", [a_table()])
    (beside / "pi.yaml").write_text("extends: cortex-a76\nname: pi\ntables: [near.csv, far]\n")
    found = tables_of(load_profile(str(beside / "pi.yaml")))
    assert {precision: brought.file for precision, brought in found.items()} == {"fp32": beside / "near.csv", "int8": own / "far.csv"}


def test_a_table_of_another_kind_of_cpu_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"(?s)other instruction sets.*asimd, asimddp \(Raspberry Pi 5\).*avx2 \(Xeon\)"):
        require_device(a_table(), Path("t.csv"), device="Xeon", isa=("avx2",), present=False)
    require_device(a_table(), Path("t.csv"), device="Cortex-A76 (Raspberry Pi 5)", isa=PI, present=False)


def test_an_instruction_set_that_no_kernel_takes_is_not_compared() -> None:
    server = a_table(origin=ORIGIN.model_copy(update={"isa": ("avx2", "avx512f", "avx_vnni", "avx512_vnni")}))
    require_device(server, Path("t.csv"), device="Xeon", isa=("avx2", "avx512f", "avx512_vnni"), present=False)
    with pytest.raises(ConfigError, match="other instruction sets"):
        require_device(server, Path("t.csv"), device="Xeon", isa=("avx2", "avx512f", "avx512_vnni", "amx_int8"), present=False)


def test_a_device_that_is_here_takes_no_table_of_another_one() -> None:
    with pytest.raises(ConfigError, match=r"(?s)measured on another device, and the target's is here.*Raspberry Pi 5.*allowed: Raspberry Pi 5 Model B"):
        require_device(a_table(), Path("t.csv"), device="Raspberry Pi 5 Model B", isa=PI, present=True)
    require_device(a_table(), Path("t.csv"), device="Raspberry Pi 5", isa=PI, present=True)


@pytest.mark.parametrize("name", [name for name, file in list_tables().items() if file.parent == SHIPPED])
def test_a_shipped_table_is_whole_and_fits_the_profile_in_its_name(name: str) -> None:
    recipe, _, profile = name.partition("--")
    loaded = load_profile(profile, {"tables": [name]})
    found = tables_of(loaded)
    assert set(found) == set(loaded.target.precisions)
    for file, table in found.values():
        require_device(table, file, device=loaded.target.device.name, isa=loaded.target.device.isa, present=False)
        assert table.meta.origin is not None
        assert table.meta.origin.recipe == recipe
        assert table.meta.origin.error[0] < 0.05
