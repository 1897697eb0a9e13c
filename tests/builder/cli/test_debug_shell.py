"""Tests of builder.cli.debug_shell."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.cli.arguments import parser_for
from builder.cli.debug_shell import DebugShell, parse_debug_shell
from builder.cli.environment import Environment
from builder.errors import UsageError


def _parse(*words: str, mode: str = "auto", stdin_tty: bool = True, stderr_tty: bool = True, **variables: str):
    environment = Environment(
        variables=variables, cwd=Path("/"), home=None, stdin_tty=stdin_tty, stderr_tty=stderr_tty, uid=1000
    )
    return parse_debug_shell(parser_for("build").parse(words), environment, mode)


@pytest.mark.parametrize(
    ("words", "args"),
    [
        (("--on", "error"), ("/bin/sh",)),
        (("--on=error", "--invoke=bash -l"), ("bash", "-l")),
        (("--invoke", "sh -c 'ls /'"), ("sh", "-c", "ls /")),
    ],
    ids=["default", "words", "quotes"],
)
def test_command_is_read_as_a_shell_would(words, args):
    """`--invoke` is a command line without expansion, and alone means a failure, as with buildx."""
    assert _parse(*words, TERM="vt100") == DebugShell(args=args, term="vt100")


def test_terminal_without_a_name_is_xterm():
    """As for `pybuild run -t`."""
    assert _parse("--on", "error").term == "xterm"


@pytest.mark.parametrize(
    ("words", "surroundings", "message"),
    [
        (("--on", "always"), {}, "option --on: not supported: `always`"),
        (("--on", ""), {}, "option --on: not supported: ``"),
        (("--invoke", ""), {}, "option --invoke: the command is empty"),
        (("--invoke", "'"), {}, "option --invoke: no closing quotation: `'`"),
        (("--on", "error", "-q"), {"mode": "quiet"}, "a shell on failure does not go with --quiet"),
        (("--on", "error"), {"mode": "quiet"}, "a shell on failure does not go with --progress quiet"),
        (("--on", "error"), {"mode": "rawjson"}, "a shell on failure does not go with --progress rawjson"),
        (("--on", "error"), {"stdin_tty": False}, "a shell on failure needs a terminal, and standard input is none"),
        (("--on", "error"), {"stderr_tty": False}, "a shell on failure needs a terminal, and standard error is none"),
    ],
)
def test_mistake_is_explained(words, surroundings, message):
    """What cannot be is refused before anything is built."""
    with pytest.raises(UsageError) as raised:
        _parse(*words, **surroundings)

    assert raised.value.message == message
