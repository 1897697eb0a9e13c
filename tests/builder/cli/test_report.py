"""Tests of builder.cli.report."""

from __future__ import annotations

import errno

import pytest

from builder.cli.report import TerminatedError, exit_code, report
from builder.errors import ContextError, DockerfileError, StepFailedError, StoreError, UsageError
from builder.source import SourceFile, Span
from registry.errors import AccessDeniedError, BlobMissingError, ReferenceInvalidError
from runtime.errors import HostUnsupportedError, KernelError

SOURCE = SourceFile("Dockerfile", "FROM alpine\nCOPY a b\nRUN make all\nCMD x\n")
RUN = Span(source=SOURCE, line=3, end_line=3)


def test_report_of_a_failed_step_is_buildkits():
    """Output between rules, the lines of the Dockerfile, then the error."""
    error = StepFailedError(
        command="make all", status=2, output=b"cc x.c\nbad \xff\x1b[2J\n", span=RUN, name="[stage-0 3/3] RUN make all"
    )

    assert report(error) == (
        "------\n"
        " > [stage-0 3/3] RUN make all:\n"
        "cc x.c\n"
        "bad \\xff\\x1b[2J\n"
        "------\n"
        "Dockerfile:3\n"
        "--------------------\n"
        "   1 |     FROM alpine\n"
        "   2 |     COPY a b\n"
        "   3 | >>> RUN make all\n"
        "   4 |     CMD x\n"
        "--------------------\n"
        'ERROR: process "make all" did not complete successfully: exit code: 2\n'
    )


def test_report_of_a_failed_step_without_name_and_output():
    """The command stands for the name."""
    error = StepFailedError(command="false", status=-9, output=b"", span=None)

    assert report(error) == (
        '------\n > RUN false:\n------\nERROR: process "false" did not complete successfully: signal: 9\n'
    )


def test_report_of_a_dockerfile_error_has_excerpt_and_hint():
    """The place is marked and the hint follows after a blank line."""
    span = Span(source=SOURCE, line=2, end_line=2, column=6, end_column=6)
    text = report(DockerfileError("unknown flag: `x`", hint="did you mean y?", span=span))

    assert text.startswith("Dockerfile:2:6\n--------------------\n")
    assert "   2 | >>> COPY a b\n     |          ^\n" in text
    assert text.endswith("--------------------\nERROR: unknown flag: `x`\n\nhint: did you mean y?\n")


def test_report_of_a_usage_error_is_one_line_and_hint():
    """Errors of the command line begin with the program's name."""
    assert report(UsageError("no such thing", hint="do that")) == "pybuild: error: no such thing\n\nhint: do that\n"


def test_report_escapes_what_others_wrote():
    """A registry cannot paint the screen through an error message."""
    error = AccessDeniedError("evil\x1b[2J", "a/b\r", status=401, hint="x\u202ey")

    assert report(error) == "ERROR: access denied by evil\\x1b[2J (401): `a/b\\x0d`\n\nhint: x\\u202ey\n"


def test_report_of_several_errors_is_a_list():
    """Errors of parallel steps are all shown, also nested ones."""
    group = ExceptionGroup("x", [ContextError("one"), ExceptionGroup("y", [StoreError("two", hint="free space")])])

    assert report(group) == "ERROR: 2 things failed:\nERROR: one\nERROR: two\n\nhint: free space\n"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOSPC, "ERROR: no space is left on the disk: `/a/b`\n\nhint: free some space"),
        (errno.EDQUOT, "ERROR: the disk quota is used up: `/a/b`\n"),
        (errno.EACCES, "ERROR: permission denied: `/a/b`\n"),
        (errno.EROFS, "ERROR: the file system is read-only: `/a/b`\n"),
        (errno.EISDIR, "ERROR: is a directory: `/a/b`\n"),
        (errno.EMFILE, "ERROR: too many open files: `/a/b`\n"),
    ],
    ids=errno.errorcode.get,
)
def test_report_of_an_os_error_is_in_words_with_the_path(number, text):
    """The operating system's errors name the path."""
    assert report(OSError(number, "Is a directory", "/a/b")).startswith(text)


def test_report_of_a_bug_has_traceback_and_request():
    """What nobody foresaw shows where it happened and asks for a report."""
    try:
        raise ZeroDivisionError("x\x1b[2J")
    except ZeroDivisionError as error:
        text = report(error)

    assert text.startswith("Traceback (most recent call last):\n")
    assert "ERROR: internal error: ZeroDivisionError: x\\x1b[2J\n" in text
    assert "please report it" in text


def test_report_of_an_interrupt_is_short():
    """Ctrl-C is not an error to explain."""
    assert report(KeyboardInterrupt()) == "ERROR: interrupted\n"
    assert report(TerminatedError()) == "ERROR: terminated\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StepFailedError(command="x", status=3, output=b"", span=None), 1),
        (UsageError("x"), 2),
        (DockerfileError("x"), 2),
        (ReferenceInvalidError("X", "y"), 2),
        (AccessDeniedError("h", "s", status=401), 3),
        (HostUnsupportedError("user namespaces", "x"), 4),
        (KernelError("mount", errno.EPERM), 4),
        (BlobMissingError("sha256:0"), 5),
        (OSError(errno.ENOSPC, "x"), 5),
        (OSError(errno.EACCES, "x"), 2),
        (OSError(errno.EMFILE, "x"), 4),
        (OSError(errno.EDOM, "x"), 70),
        (RuntimeError("x"), 70),
        (KeyboardInterrupt(), 130),
        (TerminatedError(), 143),
        (ExceptionGroup("x", [UsageError("x"), StoreError("x")]), 5),
        (BaseExceptionGroup("x", [UsageError("x"), KeyboardInterrupt()]), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_exit_code_is_the_kind_of_failure(error, code):
    """Scripts can tell what kind of thing went wrong."""
    assert exit_code(error) == code


def test_report_says_which_of_several_things_an_error_is_about():
    """A note stands before the message, also for errors of the operating system."""
    error, missing = UsageError("a tag is missing"), FileNotFoundError(errno.ENOENT, "gone", "x")
    error.add_note("target app")
    missing.add_note("target db")

    assert report(error) == "pybuild: error: target app: a tag is missing\n"
    assert report(missing) == "ERROR: target db: no such file or folder: `x`\n"
