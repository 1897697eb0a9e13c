"""`--on error`: a shell where a RUN failed, on the terminal the build was started from.

Source of the spelling: docker/buildx, `buildx debug build --on error --invoke COMMAND`.
"""

from __future__ import annotations

import shlex
import signal
import sys
from typing import TYPE_CHECKING

from builder.cli.lines import escape_controls, escape_line
from builder.cli.report import report
from builder.errors import UsageError
from registry.value import frozen
from runtime.errors import SandboxError

if TYPE_CHECKING:
    import argparse

    from builder.cli.environment import Environment
    from builder.cli.render import Renderer
    from builder.solve.failed_step import FailedStep

DEFAULT_COMMAND = "/bin/sh"

_WITHOUT_TERMINAL = frozenset({"quiet", "none", "rawjson"})
"""Values of `--progress` by which standard error is not for a person."""


@frozen
class DebugShell:
    """What is run where a step failed.

    Args:
        args: the command.
        term: what the terminal is.
    """

    args: tuple[str, ...]
    term: str

    def open(self, failed: FailedStep, renderer: Renderer, *, foreground: bool) -> None:
        """Run the command to its end, and say before where one is and how to leave; its status means nothing.

        Its output goes to standard error, since standard output may be an archive.

        Args:
            failed: the step.
            renderer: lets go of the terminal.
            foreground: whether the terminal's foreground is ours to give.
        """
        renderer.close(failed.error)
        # The command has the foreground from here on, and who writes from behind it may be stopped (stty tostop).
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        _say(f"{report(failed.error)}\n{self._introduce(failed)}\n")
        try:
            failed.run(self.args, environ=[("TERM", self.term)], stdin=0, output=2, foreground=foreground)
        except SandboxError as error:
            message = f"pybuild: cannot run `{shlex.join(self.args)}` in the failed step: {error.message}"
            _say(f"{escape_controls(message)}; name another command with --invoke\n")

    def _introduce(self, failed: FailedStep) -> str:
        """Say where one is and how to leave, in one line."""
        user, folder = failed.op.user or "root", failed.op.cwd
        return escape_line(
            f"pybuild: `{shlex.join(self.args)}` where the step failed, as {user} in {folder}; `exit` goes on to the end of "
            "the build, and what you change is thrown away"
        )


def parse_debug_shell(arguments: argparse.Namespace, environment: Environment, mode: str) -> DebugShell:
    """Return what `--on` and `--invoke` ask for, one of which is given.

    Args:
        arguments: of the parser of `build`.
        environment: the surroundings.
        mode: how progress is shown.

    Raises:
        UsageError: a value that cannot be, or no terminal to talk to somebody.
    """
    if arguments.on not in {None, "error"}:
        raise UsageError(
            f"option --on: not supported: `{arguments.on}`",
            hint="a shell is given with `--on error` alone; `pybuild run -it` runs one in what was built",
        )
    if mode in _WITHOUT_TERMINAL:
        option = "--quiet" if arguments.quiet else f"--progress {mode}"
        raise UsageError(f"a shell on failure does not go with {option}", hint="use --progress plain or tty")
    if not (environment.stdin_tty and environment.stderr_tty):
        name = "standard error" if environment.stdin_tty else "standard input"
        raise UsageError(f"a shell on failure needs a terminal, and {name} is none", hint="leave out --on and --invoke")
    return DebugShell(args=_split(arguments.invoke), term=environment.variables.get("TERM") or "xterm")


def _split(command: str | None) -> tuple[str, ...]:
    try:
        words = shlex.split(DEFAULT_COMMAND if command is None else command)
    except ValueError as error:
        raise UsageError(f"option --invoke: {str(error).lower()}: `{command}`") from error
    if not words:
        raise UsageError("option --invoke: the command is empty", hint="leave it out for /bin/sh")
    return tuple(words)


def _say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
