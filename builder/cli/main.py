"""The console entry: words to a verb, an error to a text and an exit code.

    pybuild [--root DIR] VERB …      the verb
    pybuild …                        `build`, if the first word is no verb
    pybuild help VERB, --version

The exit codes are listed in `builder.cli.report`.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys

from builder import __version__
from builder.cli.arguments import VERBS, HelpRequest, format_overview, parser_for
from builder.cli.report import TerminatedError, exit_code, report
from builder.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from typing import NoReturn

    from builder.cli.environment import Environment

_PACKAGES = ("builder", "runtime", "registry")


def run() -> NoReturn:
    """Run the command line of this process and exit."""
    ended_with: list[int] = []
    atexit.register(_leave, ended_with)  # before all others, which are called first then
    _forget_current_folder()
    code = _run_process()
    try:
        sys.stdout.flush()
    except (BrokenPipeError, AttributeError, ValueError):
        code = code or _silence_stdout()
    ended_with.append(code)
    sys.exit(code)


def main(argv: Sequence[str], environment: Environment) -> int:
    """Carry out *argv*, the words after `pybuild`, and return the exit code.

    Data goes to standard output, everything else to standard error. Never raises for anything a user can cause.
    """
    try:
        _check_packages()
        return _dispatch(argv, environment)
    except HelpRequest as request:
        sys.stdout.write(request.text)
        return 0
    except BrokenPipeError:
        return _silence_stdout()
    except Exception as error:  # noqa: BLE001  (the one place where errors end)
        return report_error(error)
    except KeyboardInterrupt as error:
        return report_error(error)
    except BaseExceptionGroup as error:
        return report_error(error)


def _run_process() -> int:
    import signal  # noqa: PLC0415  (`main` is also called without a process of its own)

    from builder.cli.environment import Environment  # noqa: PLC0415  (needs no help text)

    try:
        signal.signal(signal.SIGTERM, _raise_terminated)
        return main(sys.argv[1:], Environment.from_process())
    except (UsageError, KeyboardInterrupt) as error:
        return report_error(error)


def _dispatch(argv: Sequence[str], environment: Environment) -> int:
    options, words = _split_common(argv)
    first = words[0] if words else "help"
    if first == "help":
        return _help(words[1:])
    if first in {"-h", "--help"}:
        return _help(())
    if first in {"-V", "--version"}:
        sys.stdout.write(f"pybuild {__version__}\n")
        return 0
    verb, rest = (first, words[1:]) if first in VERBS else ("build", words)
    arguments = parser_for(verb).parse(rest if not options else [*options, *rest])
    return _carry_out(verb, arguments, environment)


def _split_common(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take `--root DIR` off the front, where it may stand before a verb."""
    words = list(argv)
    options: list[str] = []
    while words and (words[0] == "--root" or words[0].startswith("--root=")):
        count = 2 if words[0] == "--root" else 1
        options += words[:count]
        words = words[count:]
    return options, words


def _help(words: Sequence[str]) -> int:
    if not words:
        sys.stdout.write(format_overview())
        return 0
    verb = words[0]
    if verb not in VERBS:
        from builder.dockerfile.suggest import nearest  # noqa: PLC0415  (only for typing errors)

        near = nearest(verb, VERBS)
        hint = f"did you mean {near}?" if near else "`pybuild --help` lists them"
        raise UsageError(f"unknown verb: `{verb}`", hint=hint)
    sys.stdout.write(parser_for(verb).format_help())
    return 0


def _carry_out(verb: str, arguments: argparse.Namespace, environment: Environment) -> int:
    # `importlib.import_module` does the same, and would be one more package to load.
    module = __import__(f"builder.cli.verbs.{'import_' if verb == 'import' else verb}", fromlist=["run"])
    code: int = module.run(arguments, environment)
    return code


def _check_packages() -> None:
    """Compare the version markers of the three packages.

    Their names are common words: a foreign distribution with one of them would silently replace ours.

    Raises:
        UsageError: a package is not ours.
    """
    for name in _PACKAGES:
        try:
            found = getattr(__import__(name), "__version__", None)
        except ImportError:
            found = None
        if found != __version__:
            raise UsageError(
                f"package does not belong to pybuild {__version__}, another distribution may have replaced it: `{name}`",
                hint="install pybuild into an environment of its own, e.g. `pipx install pybuild`",
            )


def report_error(error: BaseException) -> int:
    """Write the report of *error* to standard error and return its exit code; never raises."""
    try:
        sys.stderr.write(report(error))
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass  # nobody reads; the exit code still says it
    return exit_code(error)


def _silence_stdout() -> int:
    """Let the interpreter flush into nothing at its end: who read from us went away, which is no error of ours."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
    return 0


def _leave(ended_with: list[int]) -> None:
    """Be the last thing that is done, and leave the memory to the kernel: the interpreter would take it apart for 15 ms.

    Not if the process ends in another way, or is traced by somebody who wants to see that.
    """
    if not ended_with or sys.gettrace() is not None:
        return
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # as above
            stream.flush()
    os._exit(ended_with[0])


def _raise_terminated(*_: object) -> NoReturn:
    raise TerminatedError


def _forget_current_folder() -> None:
    """Take the current folder off the import path: it may be a hostile build context.

    The folder that holds this package stays, so that a checkout works from within itself.
    """
    own = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    try:
        here = os.getcwd()
    except OSError:
        here = ""
    sys.path[:] = [path for path in sys.path if os.path.isabs(path) and (path == own or os.path.realpath(path) != here)]
