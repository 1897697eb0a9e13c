"""Errors of the kernel side.

    SandboxError                       exit 1
    ├── KernelError (also OSError)     exit 4   a system call failed
    ├── HostUnsupportedError           exit 4   the host lacks a feature
    │   └── IdNotMappedError           exit 4   a file of a layer belongs to an id outside the id map
    ├── StepSetupError                 exit 1   a step could not be started: user, working directory, command
    └── LayerError                     exit 5   a layer's tar is damaged or tries to leave its root

Classes carry plain values; `message`, `hint`, `id` and `exit_code` are derived.
"""

from __future__ import annotations

import os
from typing import ClassVar


class SandboxError(Exception):
    """Root of the errors of this package.

    Args:
        message: what failed, on what; lower case, no full stop.
        hint: one action the user can take, or None.
    """

    id: ClassVar[str] = "sandbox.failed"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class KernelError(SandboxError, OSError):
    """A system call failed.

    It is an OSError, but none of its subclasses, whatever the number: `except FileNotFoundError` fits the functions of os
    alone, and errno is asked of what calls `syscalls` and `paths`.

    Args:
        call: the name of the system call.
        errno: the error number.
        subject: the path or value it was asked about, empty if none.
        detail: what the kernel logged about it (fsopen contexts), empty if nothing.
    """

    id = "kernel.call-failed"
    exit_code = 4

    def __init__(self, call: str, errno: int, *, subject: str = "", detail: str = "", hint: str | None = None) -> None:
        about = f" on `{subject}`" if subject else ""
        extra = f" ({detail})" if detail else ""
        SandboxError.__init__(self, f"{call}{about}: {os.strerror(errno)}{extra}", hint=hint)
        self.call = call
        self.errno = errno
        self.subject = subject
        self.detail = detail
        self.strerror = os.strerror(errno)

    def __str__(self) -> str:
        return self.message


class HostUnsupportedError(SandboxError):
    """The host lacks a feature that the work needs.

    Args:
        feature: the feature in the user's words, e.g. "user namespaces".
        reason: what was seen.
    """

    id = "host.unsupported"
    exit_code = 4

    def __init__(self, feature: str, reason: str, *, hint: str | None = None) -> None:
        super().__init__(f"this host does not offer {feature}: {reason}", hint=hint)
        self.feature = feature
        self.reason = reason


class IdNotMappedError(HostUnsupportedError):
    """A file of a layer belongs to an id that the namespace does not map.

    Args:
        entry: the name of the entry.
        kind: "uid" or "gid".
        number: the id inside the image.
    """

    id = "host.id-not-mapped"

    def __init__(self, entry: str, kind: str, number: int) -> None:
        file = f"/etc/sub{kind}"
        super().__init__(
            f"{kind} {number}, to whom `/{entry}` of a layer belongs",
            f"the range of sub-{kind}s is too small or missing",
            hint=f"give this user at least {max(65536, number + 1)} ids in {file}",
        )
        self.entry = entry
        self.kind = kind
        self.number = number


class StepSetupError(SandboxError):
    """A step could not be started for a reason that lies in the image or the instruction.

    Args:
        stage: what was being set up ("user", "cwd", "exec", "mount").
        reason: what is wrong, in the user's words.
        status: the exit status a shell would give (126 not executable, 127 not found), or 1.
    """

    id = "step.setup"
    exit_code = 1

    def __init__(self, stage: str, reason: str, *, status: int = 1, hint: str | None = None) -> None:
        super().__init__(reason, hint=hint)
        self.stage = stage
        self.reason = reason
        self.status = status


class LayerError(SandboxError):
    """A layer's tar is damaged, or an entry tries to leave its root.

    Args:
        reason: what is wrong.
        entry: the name of the entry, empty if none was read yet.
    """

    id = "layer.invalid"
    exit_code = 5

    def __init__(self, reason: str, *, entry: str = "") -> None:
        super().__init__(f"{reason}: `{entry}`" if entry else reason)
        self.reason = reason
        self.entry = entry
