"""The command line itself: help, names, ends. Nothing is compressed here."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline.cli import app, main
from pipeline.commands.completion import complete_profiles, complete_recipes

COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
ROOT = str(Path(__file__).parents[3])


class Ended(NamedTuple):
    code: object
    out: str
    err: str


@pytest.fixture
def bonsai(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Ended]:
    """Runs the command line in this process, in an empty folder and on a screen of 80 columns."""

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["bonsai", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return Ended(end.value.code, *capsys.readouterr())

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    return run


Bonsai = Callable[..., Ended]


def test_help_fits_on_one_screen_and_begins_with_what_one_needs_first(bonsai: Bonsai) -> None:
    done = bonsai("--help")
    lines = done.out.splitlines()
    assert done.code == 0
    assert len(lines) <= 23
    assert max(map(len, lines)) <= 80
    first = lines.index("Start here")
    assert [line.split()[0] for line in lines[first + 1 : first + 3]] == ["init", "run"]
    assert "..." not in done.out.replace("COMMAND ...", "")
    assert {line.split()[0] for line in lines if line.startswith("  ")} == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_its_example_as_it_is_typed(command: str, bonsai: Bonsai) -> None:
    done = bonsai(command, "--help")
    lines = [line.strip() for line in done.out.splitlines()]
    assert done.code == 0
    assert lines[lines.index("Example:") + 1].startswith(f"bonsai {command}")
    assert all(letter.isprintable() or letter == "\n" for letter in done.out)


def test_version(bonsai: Bonsai) -> None:
    done = bonsai("--version")
    assert (done.code, done.out.split()[0]) == (0, "bonsai")


@pytest.mark.parametrize(("what", "name"), [("models", "resnet20"), ("datasets", "image_folder"), ("backends", "onnxruntime"), ("trackers", "mlflow")])
def test_what_can_be_named_is_listed_with_a_description(what: str, name: str, bonsai: Bonsai) -> None:
    lines = {line.split()[0]: line.split()[1:] for line in bonsai("list", what).out.splitlines()}
    assert lines[name]


def test_a_reader_that_has_gone_ends_it_without_a_word() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "pipeline.cli", "list", "recipes"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    os.close(write)
    assert done.stderr == ""
    assert done.returncode == 141


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["rum"], 2, "No such command"),
        (["run"], 2, "Missing argument"),
        (["gc", "--keep-days", "-1"], 2, "--keep-days"),
        (["gc", "--store", "/nowhere"], 2, "no store of artifacts"),
        (["show", "0123", "--store", "/nowhere"], 2, "neither a folder with a manifest nor a key"),
        (["verify", "/nowhere"], 6, "no package"),
        (["layout", "triton", "/nowhere"], 6, "no package"),
        (["run", "resnet-edge", "--ci-dir", "reports"], 2, "--ci-dir without --ci"),
        (["compare", "resnet-edge", "--ci-dir", "reports"], 2, "--ci-dir without --ci"),
        (["run", "/nowhere.yaml"], 2, "recipe file not found"),
        (["import", "/nowhere.json", "--data", "/nowhere", "--model", "resnet8"], 2, "cannot be read"),
        (["init", "--data", "/nowhere"], 2, "no such folder"),
    ],
)
def test_errors_end_in_a_message_and_the_documented_code(arguments: list[str], code: int, words: str, bonsai: Bonsai, tmp_path: Path) -> None:
    done = bonsai(*arguments)
    assert done.code == code, done.err
    assert words in done.err
    assert "\x1b" not in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (PermissionError(13, "Permission denied", "a.yaml"), 1)])
def test_what_stops_a_command_ends_without_a_traceback(error: BaseException, code: int, bonsai: Bonsai, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_what: str) -> None:
        raise error

    monkeypatch.setattr("pipeline.listing.describe_all", fail)
    done = bonsai("list", "recipes")
    assert done.code == code
    assert done.err == ("error: [Errno 13] Permission denied: 'a.yaml'\n" if code == 1 else "")


def test_names_and_files_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "rx.yaml").write_text("")
    assert complete_recipes("res") == ["resnet-edge"]
    assert complete_recipes("r") == ["resnet-edge", "recipes/", "rx.yaml"]
    assert complete_recipes("./r") == ["./recipes/", "./rx.yaml"]
    assert complete_profiles("rtx-4") == ["rtx-4090"]


def test_the_shell_gets_names_and_nothing_heavy_is_imported() -> None:
    code = "import sys, pipeline.cli; sys.argv = ['bonsai']; import atexit; atexit.register(lambda: print(*{'torch', 'numpy', 'prefect'} & set(sys.modules)))"
    words = {"_BONSAI_COMPLETE": "complete_bash", "COMP_WORDS": "bonsai run resn", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; pipeline.cli.main()"], capture_output=True, text=True, check=True, cwd=ROOT, env={**os.environ, **words}
    )
    assert done.stdout.split() == ["resnet-edge"]
