"""Any error as text for people and as an exit code.

The text goes to standard error. Errors of the three packages carry `message`, `hint`, `exit_code` and perhaps
`span`; what else arrives is either the operating system speaking or a fault of ours. Notes that were added to an error say
which of several things it is about, and stand before its message.

    0 done · 1 a step failed · 2 usage or Dockerfile · 3 registry · 4 the host lacks a feature · 5 store damaged ·
    70 our bug · 130 interrupted · 143 terminated
"""

from __future__ import annotations

import errno

from builder.cli.lines import decode_line, escape_controls, escape_line
from builder.errors import StepFailedError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.source import Span

BUG = 70
INTERRUPTED = 130
TERMINATED = 143

_RULE = "------"
_EXCERPT_RULE = "--------------------"
_DAMAGE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
_LIMITS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOSYS, errno.ENOMEM, errno.EAGAIN})
_NAMED = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.ENOTEMPTY,
        errno.ENXIO,
        errno.EBUSY,
        errno.ETXTBSY,
    }
)


class TerminatedError(KeyboardInterrupt):
    """The process was told to end by SIGTERM; handled wherever an interrupt is."""


def exit_code(error: BaseException) -> int:
    """Return the exit code that *error* stands for.

    Of several errors, the gravest decides: a fault of ours before a damaged store before the host, and so on.
    """
    match error:
        case BaseExceptionGroup():
            return max(exit_code(inner) for inner in error.exceptions)
        case TerminatedError():
            return TERMINATED
        case KeyboardInterrupt():
            return INTERRUPTED
        case _:
            pass
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        return code
    if isinstance(error, OSError):
        if error.errno in _DAMAGE:
            return 5
        if error.errno in _LIMITS:
            return 4
        if error.errno in _NAMED:
            return 2
    return BUG


def report(error: BaseException) -> str:
    """Return the text for standard error, ended by a newline.

    Control characters are escaped throughout: names and answers of registries are not ours.
    """
    errors = list(_flatten(error))
    parts = [_report_one(inner) for inner in errors]
    if len(errors) > 1:
        parts.insert(0, f"ERROR: {len(errors)} things failed:\n")
    return "".join(parts)


def _flatten(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _flatten(inner)
    else:
        yield error


def _report_one(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "ERROR: terminated\n" if isinstance(error, TerminatedError) else "ERROR: interrupted\n"
    if exit_code(error) == BUG:
        return _report_bug(error)
    message, hint = _describe(error)
    text = _step_output(error) if isinstance(error, StepFailedError) else ""
    span: Span | None = getattr(error, "span", None)
    if span is not None:
        text += f"{escape_line(span.location)}\n{_EXCERPT_RULE}\n{escape_controls(span.excerpt())}\n{_EXCERPT_RULE}\n"
    opening = "pybuild: error: " if isinstance(error, UsageError) else "ERROR: "
    about = "".join(f"{note}: " for note in getattr(error, "__notes__", ()))
    text += f"{opening}{escape_controls(about + message)}\n"
    if hint:
        text += f"\nhint: {escape_controls(hint)}\n"
    return text


def _describe(error: BaseException) -> tuple[str, str | None]:
    message = getattr(error, "message", None)
    if isinstance(message, str):
        return message, getattr(error, "hint", None)
    if isinstance(error, OSError):
        return _describe_os_error(error)
    return str(error) or type(error).__name__, None


def _describe_os_error(error: OSError) -> tuple[str, str | None]:
    path = error.filename
    if isinstance(path, bytes):
        path = path.decode("utf-8", "surrogateescape")
    about = f": `{path}`" if isinstance(path, str) else ""
    match error.errno:
        case errno.ENOSPC:
            return f"no space is left on the disk{about}", "free some space, or choose another folder with --root"
        case errno.EDQUOT:
            return f"the disk quota is used up{about}", "free some space, or choose another folder with --root"
        case errno.EROFS:
            return f"the file system is read-only{about}", "choose another folder with --root"
        case errno.EACCES | errno.EPERM:
            return f"permission denied{about}", None
        case errno.ENOENT:
            return f"no such file or folder{about}", None
        case errno.EMFILE | errno.ENFILE:
            return f"too many open files{about}", "raise the limit with `ulimit -n`, or lower --jobs"
        case _:
            return f"{(error.strerror or str(error)).lower()}{about}", None


def _step_output(error: StepFailedError) -> str:
    lines = [decode_line(line) for line in error.output.removesuffix(b"\n").split(b"\n")] if error.output else []
    name = escape_line(error.name or f"RUN {error.command}")
    shown = "".join(f"{escape_line(line.expandtabs(8))}\n" for line in lines)
    return f"{_RULE}\n > {name}:\n{shown}{_RULE}\n"


def _report_bug(error: BaseException) -> str:
    import platform  # noqa: PLC0415  (only for faults of ours)
    import traceback  # noqa: PLC0415  (only for faults of ours)

    from builder import __version__  # noqa: PLC0415  (only for faults of ours)

    trace = escape_controls("".join(traceback.format_exception(error)))
    where = f"pybuild {__version__}, Python {platform.python_version()}, {platform.system()} {platform.release()}"
    summary = escape_controls(f"{type(error).__name__}: {error}")
    return (
        f"{trace}ERROR: internal error: {summary}\n"
        f"\nhint: this is a fault of pybuild; please report it with the text above ({where})\n"
    )
