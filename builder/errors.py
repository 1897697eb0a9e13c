"""Errors of the builder.

    BuildError                         exit 1
    ├── UsageError                     exit 2   the command line asks for something that cannot be
    ├── DockerfileError                exit 2   the text of a Dockerfile (subclasses beside the parser's subjects)
    ├── BakeError                      exit 2   targets that files define do not fit together
    │   └── BakeFileError              exit 2   a file of targets cannot be read, or says what cannot be
    ├── ContextError                   exit 2   the build context, an ignore file, a COPY source
    ├── CopyError                      exit 2   a COPY, ADD or WORKDIR does not fit what the image has
    ├── ArchiveError                   exit 2   a tar of images that cannot be read
    ├── StepFailedError                exit 1   a RUN ended with a status that is not 0
    ├── AttestationError               exit 1   a generator's list of software cannot be used, or is too long
    ├── BaseImageError                 exit 3   the image of a FROM or --from cannot be had, or cannot be unpacked
    │   └── WrongLayerError            a layer of it is not what its config says
    ├── EmulationMissingError          exit 4   a RUN is for a platform that this machine does not execute
    ├── DeviceFileError                exit 4   a file that describes devices cannot be used
    ├── DeviceMissingError             exit 4   a RUN requires a device that this machine does not have
    ├── DeviceUnusableError            exit 4   a device is described as this machine, or pybuild, cannot give it
    ├── SourceError                    exit 3   a URL or git repository cannot be fetched, or is not what was wanted
    └── StoreError                     exit 5   the store is damaged or cannot be written
        └── StateDamagedError          its database was, and is begun anew

Every error carries plain values; `message`, `hint`, `id` and `exit_code` are derived from them and `span` says where
in a source file the cause stands. Only `builder.cli` turns them into text.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import ClassVar

    from builder.source import Span


class BuildError(Exception):
    """Root of the errors of this package.

    Args:
        message: what failed, on what; lower case, no full stop.
        hint: one action the user can take, or None.
        span: where in a source file the cause stands, or None.
    """

    id: ClassVar[str] = "build.failed"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None, span: Span | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.span = span


class UsageError(BuildError):
    """The command line asks for something that cannot be."""

    id = "cli.usage"
    exit_code = 2


class DockerfileError(BuildError):
    """The text of a Dockerfile is wrong."""

    id = "dockerfile.invalid"
    exit_code = 2


class BakeError(BuildError):
    """The targets that files define do not fit together, or ask for what is not allowed."""

    id = "bake.invalid"
    exit_code = 2


class BakeFileError(BakeError):
    """A file of targets cannot be read, or says what cannot be.

    Args:
        file: the file as the user calls it.
        reason: what is wrong with it.
        path: where in it, "target.app.tags[0]"; empty for the whole.
        hint: one action the user can take, or None.
    """

    id = "bake.invalid-file"

    def __init__(self, file: str, reason: str, *, path: str = "", hint: str | None = None) -> None:
        super().__init__(f"bake file {file} cannot be used, {reason}" + (f": `{path}`" if path else ""), hint=hint)
        self.file = file
        self.reason = reason
        self.path = path


class ContextError(BuildError):
    """The build context lacks something, or cannot be read."""

    id = "context.invalid"
    exit_code = 2


class CopyError(BuildError):
    """A COPY, ADD or WORKDIR does not fit what the image has."""

    id = "copy.failed"
    exit_code = 2


class ArchiveError(BuildError):
    """A tar of images is damaged, or not what it should be."""

    id = "archive.invalid"
    exit_code = 2


ONE_OWNER_HINT = (
    "you have no sub-ids, so users in a step are only told apart where they own files, not where they may; "
    "if that is why it failed: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER"
)
"""What differs for a step where only one user id is mapped, and the cure."""


class StepFailedError(BuildError):
    """A RUN ended with a status other than 0.

    Args:
        command: the command as the user wrote it.
        status: the exit status, or the negative number of the signal that ended it.
        output: the last lines the step wrote, as bytes.
        name: the step's name as progress shows it, "[stage-0 2/3] RUN make"; empty if it has none.
        one_owner: whether only one user id existed in the namespace, which may be why it failed.
    """

    id = "step.failed"
    exit_code = 1

    def __init__(
        self,
        *,
        command: str,
        status: int,
        output: bytes,
        span: Span | None,
        name: str = "",
        one_owner: bool = False,
    ) -> None:
        how = f"exit code: {status}" if status >= 0 else f"signal: {-status}"
        super().__init__(
            f'process "{command}" did not complete successfully: {how}',
            hint=ONE_OWNER_HINT if one_owner else None,
            span=span,
        )
        self.command = command
        self.status = status
        self.output = output
        self.name = name


class AttestationError(BuildError):
    """What a generator of lists of software wrote cannot be used, or an attestation is too long."""

    id = "attestation.invalid"
    exit_code = 1


class BaseImageError(BuildError):
    """The image that a FROM or `--from` names cannot be had from its registry."""

    id = "image.unavailable"
    exit_code = 3


class WrongLayerError(BaseImageError):
    """A layer of an image unpacks to another tar than the config of the image says.

    Its file system would be taken for one that it is not, so nothing is made of it.

    Args:
        image: what the image is called.
        layer: digest of the layer.
        expected: the diff_id in the config.
        actual: the diff_id of the layer.
    """

    id = "image.wrong-layer"

    def __init__(self, *, image: str, layer: str, expected: str, actual: str) -> None:
        super().__init__(
            f"a layer of the image is not the one that its config names, layer {layer} has the diff_id {actual}, "
            f"the config says {expected}: `{image}`",
            hint="use another tag or digest of the image, and tell who publishes it",
        )
        self.image = image
        self.layer = layer
        self.expected = expected
        self.actual = actual


class EmulationMissingError(BuildError):
    """A RUN is made for a platform whose programs this machine does not execute."""

    id = "host.no-emulation"
    exit_code = 4


class DeviceFileError(BuildError):
    """A file of the Container Device Interface cannot be read, or breaks the specification.

    Args:
        file: the file.
        reason: what is wrong with it.
        path: where in it, "devices[0].name"; empty for the whole.
    """

    id = "device.invalid-file"
    exit_code = 4

    def __init__(self, file: Path, reason: str, *, path: str = "") -> None:
        super().__init__(f"device file `{file}` cannot be used, {reason}" + (f": `{path}`" if path else ""))
        self.file = file
        self.reason = reason
        self.path = path


class DeviceMissingError(BuildError):
    """A RUN requires a device that no device file describes."""

    id = "host.no-device"
    exit_code = 4


class DeviceUnusableError(BuildError):
    """A device is described as this machine does not have it, or as pybuild cannot give it."""

    id = "host.device-unusable"
    exit_code = 4


class SourceError(BuildError):
    """A URL or git repository, of an ADD or a context, cannot be fetched, or is not what was wanted."""

    id = "source.unavailable"
    exit_code = 3


class StoreError(BuildError):
    """The store is damaged, full, or cannot be written."""

    id = "store.unusable"
    exit_code = 5


class StateDamagedError(StoreError):
    """The state database turned out to be damaged; a new one was begun by the time this is raised.

    Args:
        cause: what SQLite says.
        path: where the database lies.
    """

    id = "store.state-damaged"

    def __init__(self, cause: str, path: str) -> None:
        super().__init__(f"state database was damaged and is begun anew, {cause}: `{path}`", hint="do the same again")
        self.cause = cause
        self.path = path
