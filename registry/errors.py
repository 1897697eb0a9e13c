"""Errors of the content side.

    RegistryError                      exit 3
    ├── ReferenceInvalidError          exit 2   the text of an image reference
    ├── PlatformInvalidError           exit 2   the text of a platform
    ├── CompressionInvalidError        exit 2   a compression or level that there is not
    ├── DigestInvalidError             exit 3   the text of a digest
    ├── ContentError                   exit 5   bytes in the store: missing, damaged, not what their name says
    │   ├── BlobMissingError
    │   ├── BlobTooLargeError          a document is longer than any real one
    │   ├── BlobAbandonedError         a blob that is read while it is written will not be finished
    │   ├── DigestMismatchError
    │   │   └── BlobDamagedError       bytes in the store, which are removed
    │   ├── SizeMismatchError
    │   ├── LayerDamagedError          a layer's compressed stream ends early or cannot be decompressed
    │   ├── StoreFullError             no space or quota left where blobs are written
    │   └── LayoutError
    ├── ImageMissingError              exit 3   no image of that name in a layout
    ├── PlatformMissingError           exit 3   an index has no image for the platform
    ├── ManifestInvalidError           exit 3   a manifest, index or config that breaks the specification
    ├── ConfigurationError             exit 3   registries.conf or an auth file cannot be read, or says what cannot be
    │   ├── CertificateInvalidError    a file of certs.d
    │   └── CredentialHelperError      docker-credential-NAME is missing, fails or talks nonsense
    ├── RegistryBlockedError           exit 3   registries.conf forbids the name
    ├── UnreachableError               exit 3   no connection, no name, time-out, TLS
    ├── AccessDeniedError              exit 3   401 and 403
    ├── NotFoundError                  exit 3   404: manifest or blob unknown
    ├── RateLimitedError               exit 3   429 with a wait that is too long to sit out
    ├── StorageError                   exit 3   an object store that keeps a cache cannot be reached, or refuses
    ├── DownloadError                  exit 3   the body of an ordinary address cannot be had
    └── ProtocolError                  exit 3   any other answer that the distribution specification does not foresee

Classes carry plain values; `message`, `hint`, `id` and `exit_code` are derived. Tokens and passwords never enter one.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar


class RegistryError(Exception):
    """Root of the errors of this package.

    Args:
        message: what failed, on what; lower case, no full stop.
        hint: one action the user can take, or None.
    """

    id: ClassVar[str] = "registry.failed"
    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ReferenceInvalidError(RegistryError):
    """The text of an image reference cannot be read."""

    id = "reference.invalid"
    exit_code = 2

    def __init__(self, text: str, reason: str, *, hint: str | None = None) -> None:
        super().__init__(f"invalid image reference, {reason}: `{text}`", hint=hint)
        self.text = text
        self.reason = reason


class PlatformInvalidError(RegistryError):
    """The text of a platform cannot be read."""

    id = "platform.invalid"
    exit_code = 2

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"invalid platform, {reason}: `{text}`", hint="write it like linux/amd64 or linux/arm/v7")
        self.text = text
        self.reason = reason


class CompressionInvalidError(RegistryError):
    """A compression, or a level of one, that there is not."""

    id = "compression.invalid"
    exit_code = 2

    def __init__(self, text: str, *, hint: str) -> None:
        super().__init__(f"unknown compression: `{text}`", hint=hint)
        self.text = text


class DigestInvalidError(RegistryError):
    """The text of a digest cannot be read."""

    id = "digest.invalid"

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"invalid digest, {reason}: `{text}`")
        self.text = text
        self.reason = reason


class ContentError(RegistryError):
    """Bytes in the store are missing, damaged, or not what their name says."""

    id = "content.invalid"
    exit_code = 5


class BlobMissingError(ContentError):
    """A blob is not in the store."""

    id = "content.missing"

    def __init__(self, digest: str) -> None:
        super().__init__(f"blob is not in the store: `{digest}`")
        self.digest = digest


class BlobTooLargeError(ContentError):
    """A blob that is to be held in memory is longer than any real one."""

    id = "content.too-large"

    def __init__(self, digest: str, *, size: int, limit: int) -> None:
        super().__init__(f"blob of {size} bytes is longer than the {limit} that are read: `{digest}`")
        self.digest = digest
        self.size = size
        self.limit = limit


class BlobAbandonedError(ContentError):
    """A blob is read while it is written, and its writer gave up; why is the writer's to tell."""

    id = "content.abandoned"

    def __init__(self) -> None:
        super().__init__("a blob that was on its way will not come")


class DigestMismatchError(ContentError):
    """Bytes do not hash to the digest they were announced under."""

    id = "content.digest-mismatch"

    def __init__(self, *, expected: str, actual: str, subject: str) -> None:
        super().__init__(
            f"digest mismatch in {subject}: expected {expected}, got `{actual}`",
            hint="the bytes were damaged or replaced on the way; try again, and if it stays, tell who runs the source",
        )
        self.expected = expected
        self.actual = actual
        self.subject = subject


class BlobDamagedError(DigestMismatchError):
    """The bytes of a stored blob are not those of its name; it was removed."""

    id = "content.blob-damaged"

    def __init__(self, *, expected: str, actual: str) -> None:
        ContentError.__init__(
            self,
            f"a stored blob was damaged and is removed, its bytes have the digest {actual}: `{expected}`",
            hint="build, pull or load the image again",
        )
        self.expected = expected
        self.actual = actual
        self.subject = f"blob {expected}"


class SizeMismatchError(ContentError):
    """A stream is longer or shorter than announced."""

    id = "content.size-mismatch"

    def __init__(self, *, expected: int, actual: int, subject: str) -> None:
        super().__init__(f"size mismatch in {subject}: expected {expected} bytes, got `{actual}`")
        self.expected = expected
        self.actual = actual
        self.subject = subject


class LayerDamagedError(ContentError):
    """The compressed stream of a layer or archive ends early, or is not what it claims to be."""

    id = "content.damaged"

    def __init__(self, reason: str, *, subject: str) -> None:
        super().__init__(f"damaged {subject}, {reason}")
        self.reason = reason
        self.subject = subject


class StoreFullError(ContentError):
    """There is no space, or no quota, left where blobs are written.

    Args:
        folder: the folder that could not be written to.
        cause: what the kernel said, e.g. "No space left on device".
    """

    id = "store.full"

    def __init__(self, folder: str, cause: str) -> None:
        super().__init__(
            f"the store cannot take more bytes, {cause}: `{folder}`",
            hint=f"make room below {folder}, for example with `pybuild prune`",
        )
        self.folder = folder
        self.cause = cause


class ImageMissingError(RegistryError):
    """No image of that name is in a layout."""

    id = "image.missing"

    def __init__(self, name: str) -> None:
        super().__init__(f"no such image: `{name}`", hint="`pybuild images` lists what is there")
        self.name = name


class PlatformMissingError(RegistryError):
    """An index has no image that runs on the wanted platform.

    Args:
        wanted: the platform asked for, e.g. "linux/arm64".
        available: the platforms there are.
        subject: whose index it is.
    """

    id = "platform.missing"

    def __init__(self, *, wanted: str, available: tuple[str, ...], subject: str) -> None:
        super().__init__(
            f"{subject} has no image for the platform: `{wanted}`",
            hint=f"there is one for {', '.join(available)}" if available else None,
        )
        self.wanted = wanted
        self.available = available
        self.subject = subject


class LayoutError(ContentError):
    """An OCI image layout is damaged."""

    id = "layout.invalid"


class ManifestInvalidError(RegistryError):
    """A manifest, index or config breaks the specification.

    Args:
        subject: what was read, e.g. "manifest of docker.io/library/alpine:3.6".
        path: where in the JSON, e.g. "layers[2].digest"; empty for the whole.
        reason: what is wrong there.
    """

    id = "manifest.invalid"

    def __init__(self, *, subject: str, path: str, reason: str) -> None:
        super().__init__(f"invalid {subject}, {reason}" + (f": `{path}`" if path else ""))
        self.subject = subject
        self.path = path
        self.reason = reason


class ConfigurationError(RegistryError):
    """A file that configures access to registries cannot be read, or says what cannot be.

    Args:
        file: the file's path.
        reason: what is wrong with it, and where in it; never a value that may be secret.
    """

    id = "registry.configuration"

    def __init__(self, file: str, reason: str, *, hint: str | None = None) -> None:
        super().__init__(f"registry configuration cannot be used, {reason}: `{file}`", hint=hint)
        self.file = file
        self.reason = reason


class CertificateInvalidError(ConfigurationError):
    """A certificate or key of certs.d cannot be used."""

    id = "registry.certificate"


class CredentialHelperError(ConfigurationError):
    """A credential helper is missing, fails, or gives an answer that cannot be read.

    *file* is the program, e.g. "docker-credential-secretservice".
    """

    id = "registry.credential-helper"


class RegistryBlockedError(RegistryError):
    """The configuration forbids to use a name.

    Args:
        name: the reference asked for.
        prefix: the prefix of the rule that blocks it.
    """

    id = "registry.blocked"

    def __init__(self, name: str, *, prefix: str) -> None:
        super().__init__(
            f"registries.conf blocks `{prefix}`: `{name}`",
            hint="name another registry, or ask who wrote registries.conf",
        )
        self.name = name
        self.prefix = prefix


class UnreachableError(RegistryError):
    """No connection to a registry.

    Args:
        host: whom we tried to reach.
        cause: why not, in words.
        transient: whether trying again soon can help.
    """

    id = "registry.unreachable"

    def __init__(self, host: str, cause: str, *, transient: bool = False, hint: str | None = None) -> None:
        super().__init__(f"registry cannot be reached, {cause}: `{host}`", hint=hint)
        self.host = host
        self.cause = cause
        self.transient = transient


class AccessDeniedError(RegistryError):
    """The registry refuses the credentials, or wants some."""

    id = "registry.denied"

    def __init__(self, host: str, subject: str, *, status: int, hint: str | None = None) -> None:
        super().__init__(f"access denied by {host} ({status}): `{subject}`", hint=hint)
        self.host = host
        self.subject = subject
        self.status = status


class NotFoundError(RegistryError):
    """The registry does not know a manifest or blob."""

    id = "registry.not-found"

    def __init__(self, host: str, subject: str, *, hint: str | None = None) -> None:
        super().__init__(f"not found on {host}: `{subject}`", hint=hint)
        self.host = host
        self.subject = subject


class RateLimitedError(RegistryError):
    """The registry wants fewer requests, for longer than we sit out.

    Args:
        host: who says so.
        subject: what was asked for.
        seconds: how long it wants us to wait, None if it does not say.
    """

    id = "registry.rate-limited"

    def __init__(self, host: str, subject: str, *, seconds: float | None, hint: str | None = None) -> None:
        wait = f", wait {seconds:.0f} seconds" if seconds is not None else ""
        super().__init__(f"{host} limits the number of requests{wait}: `{subject}`", hint=hint)
        self.host = host
        self.subject = subject
        self.seconds = seconds


class ProtocolError(RegistryError):
    """An answer that the distribution specification does not foresee."""

    id = "registry.protocol"

    def __init__(self, host: str, subject: str, *, status: int | None, detail: str) -> None:
        about = f" ({status})" if status else ""
        super().__init__(f"unexpected answer from {host}{about}, {detail}: `{subject}`")
        self.host = host
        self.subject = subject
        self.status = status
        self.detail = detail


class DownloadError(RegistryError):
    """The body of an ordinary address cannot be had.

    Args:
        url: the address without user, password and query.
        cause: why not, in words.
        status: what the server answered, None if it is not for an answer.
    """

    id = "download.failed"

    def __init__(self, url: str, cause: str, *, status: int | None = None, hint: str | None = None) -> None:
        super().__init__(f"download failed, {cause}: `{url}`", hint=hint)
        self.url = url
        self.cause = cause
        self.status = status


class StorageError(RegistryError):
    """An object store cannot be reached, or refuses.

    Args:
        host: the bucket or address.
        subject: what was asked for.
        cause: why not, in words.
        status: what it answered, None if it is not for an answer.
    """

    id = "storage.failed"

    def __init__(
        self, host: str, subject: str, *, cause: str, status: int | None = None, hint: str | None = None
    ) -> None:
        about = f" ({status})" if status else ""
        super().__init__(f"storage {host} cannot be used{about}, {cause}: `{subject}`", hint=hint)
        self.host = host
        self.subject = subject
        self.cause = cause
        self.status = status
