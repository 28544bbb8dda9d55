"""The command line itself: help, names, ends. Nothing is compressed here."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from bonsai.pipeline.cli.commands.completion import complete_profiles, complete_recipes
from bonsai.pipeline.cli.commands.options import read_size
from bonsai.pipeline.cli.endings import message_of
from bonsai.pipeline.cli.main import app, main
from bonsai.stages.store.locks import hold
from bonsai.stages.store.store import IN_USE, LOCKS

COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
GROUPS = [str(group.name) for group in app.registered_groups]
ROOT = str(Path(__file__).parents[4])


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
    assert {line.split()[0] for line in lines if line.startswith("  ")} == {*COMMANDS, *GROUPS}


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
    command = [sys.executable, "-m", "bonsai", "list", "recipes"]
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
        (["init", "--data", "/nowhere", "--masks", "/nowhere"], 2, "--data: no such folder"),
        (["init", "--data", "/nowhere", "--size", "48*64"], 2, "--size: no size of images"),
        (["init", "--data", "/nowhere", "--size", "64x4"], 2, "each at least 8"),
    ],
)
def test_errors_end_in_a_message_and_the_documented_code(arguments: list[str], code: int, words: str, bonsai: Bonsai, tmp_path: Path) -> None:
    done = bonsai(*arguments)
    assert done.code == code, done.err
    assert words in done.err
    assert "\x1b" not in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("text", "size"), [(None, None), ("64", 64), ("48x64", (48, 64))])
def test_a_size_is_a_side_or_a_height_and_a_width(text: str | None, size: object) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (PermissionError(13, "Permission denied", "a.yaml"), 1)])
def test_what_stops_a_command_ends_without_a_traceback(error: BaseException, code: int, bonsai: Bonsai, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_what: str) -> None:
        raise error

    monkeypatch.setattr("bonsai.pipeline.cli.listing.describe_all", fail)
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
    code = (
        "import atexit, sys, bonsai.pipeline.cli.main; sys.argv = ['bonsai']; atexit.register(lambda: print(*{'torch', 'numpy', 'prefect'} & set(sys.modules)))"
    )
    words = {"_BONSAI_COMPLETE": "complete_bash", "COMP_WORDS": "bonsai run resn", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; bonsai.pipeline.cli.main.main()"], capture_output=True, text=True, check=True, cwd=ROOT, env={**os.environ, **words}
    )
    assert done.stdout.split() == ["resnet-edge"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a.safetensors"), "the disk is full\n  given:   [Errno 28] No space left on device: 'a.safetensors'"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "your quota on the disk is used up"),
        (MemoryError("Unable to allocate 9 TiB"), "there is not enough memory\n  given:   Unable to allocate 9 TiB"),
        (MemoryError(), "there is not enough memory\n  given:   MemoryError"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "there is not enough memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "there is not enough memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 9 TiB"), "there is not enough memory"),
    ],
)
def test_a_full_machine_ends_in_one_message_and_code_1(error: Exception, words: str, bonsai: Bonsai, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_what: str) -> None:
        raise error

    monkeypatch.setattr("bonsai.pipeline.cli.listing.describe_all", fail)
    done = bonsai("list", "recipes")
    assert done.code == 1
    assert done.err.startswith(f"error: {words}")
    assert "the same command goes on" in done.err


def test_torchs_own_error_for_lack_of_memory_is_known() -> None:
    with pytest.raises(RuntimeError) as failed:
        torch.empty(1 << 60)
    assert "there is not enough memory" in (message_of(failed.value) or "")


def test_a_fault_of_bonsais_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_what: str) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr("bonsai.pipeline.cli.listing.describe_all", fail)
    monkeypatch.setattr(sys, "argv", ["bonsai", "list", "recipes"])
    with pytest.raises(RuntimeError, match="a fault"):
        main()


@pytest.mark.parametrize(
    ("redirected", "code", "words"),
    [
        (">/dev/full", 1, "error: the disk is full"),
        (">&-", 1, "error: [Errno 9] standard output is closed"),
        ("2>&-", 0, ""),
        ("2>/dev/full", 0, ""),
        ("<&-", 0, ""),
    ],
)
def test_an_output_that_takes_nothing_ends_in_one_message(redirected: str, code: int, words: str) -> None:
    line = f'"{sys.executable}" -m bonsai.pipeline.cli.main list recipes {redirected}'
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(words)
    assert done.stderr.count("\n") == (4 if "disk" in words else 1 if words else 0)


def open_files(pid: int) -> list[str]:
    """Return the files that a process has open, but those that it closes meanwhile."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(str(link.readlink()))
    return found


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_that_is_asked_to_end_says_so_and_ends_with_the_signals_code(number: signal.Signals, code: int, tmp_path: Path) -> None:
    lock = tmp_path / LOCKS / IN_USE
    command = [sys.executable, "-m", "bonsai", "run", "resnet-edge", "--store", str(tmp_path)]
    with hold(lock):  # as `bonsai gc --delete` does: the run waits for it
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        try:
            while process.poll() is None and str(lock) not in open_files(process.pid):
                time.sleep(0.05)
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, said) == (code, "stopped; the same command goes on from the last finished epoch\n")


def test_a_run_on_a_full_disk_leaves_nothing_half_made(tmp_path: Path) -> None:
    script = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000)); from bonsai.pipeline.cli.main import main; main()"
    command = [sys.executable, "-c", script, "run", "resnet-edge", "--store", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.startswith("error: a file would become larger than this process may write\n")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "prepare").exists()
    assert [file for file in (tmp_path / ".work").rglob("*") if file.is_file()] == []
