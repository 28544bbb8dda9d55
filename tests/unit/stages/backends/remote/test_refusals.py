"""What ssh says becomes one message, which says what to do."""

import sys

import pytest

from bonsai.stages.backends.remote.refusals import command_again, gone, refusal
from bonsai.stages.backends.remote.ssh import quoted, ssh_command

ADDRESS = "ssh://pi@kitchen"
CASES = {
    "No ED25519 host key is known for kitchen.\nHost key verification failed.": (
        "does not know the device's host key",
        True,
    ),
    "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nHost key verification failed.": ("another host key than the one", True),
    "pi@kitchen: Permission denied (publickey,password).": ("lets nobody in with your keys", False),
    "ssh: Could not resolve hostname kitchen: Name or service not known": ("no machine has this name", False),
    "ssh: connect to host kitchen port 22: No route to host": ("does not answer", False),
    "ssh: connect to host kitchen port 22: Connection refused": ("does not answer", False),
    "Timeout, server kitchen not responding.": ("does not answer", False),
    "bash: line 1: /home/pi/bonsai/bin/python: No such file or directory": ("no such Python", True),
    "ModuleNotFoundError: No module named 'bonsai'": ("is not installed there", True),
    "something that nobody has seen": ("ssh ended with code 255: something that nobody has seen", False),
}


@pytest.mark.parametrize(("words", "expected"), CASES.items())
def test_the_words_of_ssh_become_one_message(words: str, expected: tuple[str, bool]) -> None:
    error = refusal(ADDRESS, words, 255)
    assert expected[0] in str(error)
    assert error.lasting == expected[1]
    assert error.exit_code == 5
    assert str(error).startswith(ADDRESS)
    assert "{" not in str(error)


def test_a_device_that_does_not_speak_in_time_is_told() -> None:
    assert "it did not answer in time" in str(refusal(ADDRESS, "", None))


@pytest.mark.parametrize(
    ("argv", "again"),
    [
        (["/opt/bin/bonsai", "run", "resnet-edge", "--set", "name=a b"], "`bonsai run resnet-edge --set 'name=a b'`"),
        (["/opt/lib/bonsai/__main__.py", "compare", "tiny"], "`bonsai compare tiny`"),
        (["train.py"], "run the same again"),
    ],
)
def test_the_message_of_a_lost_device_has_the_command_to_go_on(argv: list[str], again: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert command_again() == again
    assert f"then go on: {again}" in str(gone(ADDRESS, "Broken pipe", waited=300))


def test_ssh_asks_no_question_and_its_command_can_be_another(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ssh_command(ADDRESS, ["python3"])[:2] == ["ssh", "-oBatchMode=yes"]
    monkeypatch.setenv("BONSAI_SSH", "ssh -F 'my config'")
    words = ssh_command(ADDRESS, ["~/my env/bin/python", "-c", "print('a b')"])
    assert words[:3] == ["ssh", "-F", "my config"]
    assert words[-3:] == [ADDRESS, "--", """exec ~/'my env/bin/python' -c 'print('"'"'a b'"'"')'"""]
    assert not any("StrictHostKeyChecking" in word for word in words)


def test_the_home_folder_stays_the_shell_s() -> None:
    assert quoted(["~/bonsai/bin/python", "~", "$HOME"]) == "~/bonsai/bin/python '~' '$HOME'"
