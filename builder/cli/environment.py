"""What the process was given by its surroundings, read once.

No other module reads variables, the working directory, the home folder, terminals, or knows where configuration
files lie.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from builder.errors import UsageError
from registry.value import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

    from runtime.isolation import Choice

DEFAULT_LOG_LINES = 6
"""Lines of a running step that the terminal view shows, as BuildKit does."""

_SYSTEM_CONFIGURATION = Path("/etc/containers")
_DEFAULT_SIZE = (80, 24)


@frozen
class Environment:
    """The surroundings of one run.

    *home* is None where neither `$HOME` nor the user database names a folder, as for an arbitrary uid in a
    container. *width* and *height* are those of the terminal on standard error, in characters.
    """

    variables: Mapping[str, str]
    cwd: Path
    home: Path | None
    stdin_tty: bool = False
    stdout_tty: bool = False
    stderr_tty: bool = False
    width: int = _DEFAULT_SIZE[0]
    height: int = _DEFAULT_SIZE[1]
    uid: int = 0

    @classmethod
    def from_process(cls) -> Environment:
        """Read the surroundings of this process.

        Raises:
            UsageError: the working directory is gone.
        """
        variables = dict(os.environ)
        try:
            cwd = Path.cwd()
        except OSError as error:
            hint = "change to a folder that exists"
            raise UsageError("the current directory cannot be read, it may have been removed", hint=hint) from error
        width, height = _terminal_size()
        return cls(
            variables=variables,
            cwd=cwd,
            home=_find_home(variables),
            stdin_tty=_is_tty(0),
            stdout_tty=_is_tty(1),
            stderr_tty=_is_tty(2),
            width=width,
            height=height,
            uid=os.getuid(),
        )

    def read_stdin(self) -> bytes:
        """Read standard input to its end.

        Raises:
            UsageError: it is closed.
        """
        if sys.stdin is None:
            raise UsageError("standard input is closed")
        return sys.stdin.buffer.read()

    def stdin(self) -> BinaryIO:
        """Return standard input as a stream of bytes.

        Raises:
            UsageError: it is closed, or a terminal.
        """
        if sys.stdin is None:
            raise UsageError("standard input is closed")
        if self.stdin_tty:
            raise UsageError("standard input is a terminal", hint="pipe a tar or a Dockerfile into it")
        return sys.stdin.buffer

    def path(self, text: str) -> Path:
        """Return the path that *text* names, seen from the working directory; `~` is left to the shell."""
        return self.cwd / text

    def root(self, option: str | None) -> Path:
        """Return the root of the store: *option*, `$PYBUILD_ROOT`, `$XDG_DATA_HOME/pybuild`, then a default.

        The default is `/var/lib/pybuild` for uid 0, `~/.local/share/pybuild` for users, and for a user with no
        home a private folder in `/var/tmp`, which is made here so that nobody else can have made it.

        Raises:
            UsageError: the folder in `/var/tmp` belongs to someone else.
        """
        chosen = option or self.variables.get("PYBUILD_ROOT")
        if chosen:
            return self.path(chosen)
        data = self._xdg("XDG_DATA_HOME")
        if data is not None:
            return data / "pybuild"
        if self.uid == 0:
            return Path("/var/lib/pybuild")
        if self.home is not None:
            return self.home / ".local" / "share" / "pybuild"
        return _make_private_folder(Path(f"/var/tmp/pybuild-{self.uid}"), self.uid)  # noqa: S108  (its owner is checked)

    def isolation(self, option: str | None = None) -> Choice:
        """Return how steps are kept apart: *option*, `$PYBUILD_ISOLATION`, else `auto`.

        Raises:
            UsageError: there is no such isolation.
        """
        chosen = option or self.variables.get("PYBUILD_ISOLATION")
        if not chosen:
            return "auto"
        from runtime.isolation import CHOICES  # noqa: PLC0415  (a build that is cached does without, unless asked)

        for known in CHOICES:
            if chosen == known:
                return known
        raise UsageError(f"unknown isolation: `{chosen}`", hint=f"one of {', '.join(CHOICES)}")

    def gc(self, option: str | None) -> tuple[str, str]:
        """Return what the cache is held to after a build, not checked, empty for the default, and where it was said."""
        if option is not None:
            return option, "--gc"
        return self.variables.get("PYBUILD_GC", ""), "PYBUILD_GC"

    def auth_files(self) -> tuple[Path, ...]:
        """Return the files with credentials, the one that counts most first; none of them has to exist.

        Source: containers-auth.json(5); docker login, section Credential stores.
        """
        named = self.variables.get("REGISTRY_AUTH_FILE")
        if named:
            return (self.path(named),)
        runtime = self._xdg("XDG_RUNTIME_DIR")
        temporary = runtime / "containers" if runtime is not None else Path(f"/run/containers/{self.uid}")
        paths = [temporary / "auth.json"]
        configuration = self.configuration_folder()
        if configuration is not None:
            paths.append(configuration / "containers" / "auth.json")
        docker = self.docker_folder()
        if docker is not None:
            paths.append(docker / "config.json")
        return tuple(paths)

    def login_file(self) -> Path:
        """Return the file `login` writes: the first of `auth_files` that exists, else one that outlives a reboot."""
        files = self.auth_files()
        for path in files:
            if path.exists():
                return path
        return files[1] if len(files) > 1 else files[0]

    def registries_files(self) -> tuple[Path, ...]:
        """Return where `registries.conf` may lie: files, the first that exists counts, then folders of drop-ins.

        Source: containers-registries.conf(5); containers-registries.conf.d(5).
        """
        named = self.variables.get("CONTAINERS_REGISTRIES_CONF") or self.variables.get("REGISTRIES_CONFIG_PATH")
        if named:
            return (self.path(named),)
        configuration = self.configuration_folder()
        folders = [configuration / "containers"] if configuration is not None else []
        files = [folder / "registries.conf" for folder in (*folders, _SYSTEM_CONFIGURATION)]
        dropins = [folder / "registries.conf.d" for folder in (_SYSTEM_CONFIGURATION, *folders)]
        return (*files, *(folder for folder in dropins if folder.is_dir()))

    def certificate_folders(self) -> tuple[Path, ...]:
        """Return the `certs.d` folders, the one that counts most first; none of them has to exist.

        Source: containers-certs.d(5).
        """
        paths = [_SYSTEM_CONFIGURATION / "certs.d", Path("/etc/docker/certs.d")]
        configuration = self.configuration_folder()
        if configuration is not None:
            paths.insert(0, configuration / "containers" / "certs.d")
        return tuple(paths)

    def configuration_folder(self) -> Path | None:
        """Return `$XDG_CONFIG_HOME`, else `~/.config`; None without a home."""
        configuration = self._xdg("XDG_CONFIG_HOME")
        if configuration is not None or self.home is None:
            return configuration
        return self.home / ".config"

    def docker_folder(self) -> Path | None:
        """Return `$DOCKER_CONFIG`, else `~/.docker`; None without a home."""
        named = self.variables.get("DOCKER_CONFIG")
        if named:
            return self.path(named)
        return self.home / ".docker" if self.home is not None else None

    def color(self) -> bool:
        """Tell whether people on standard error may be shown colour.

        Source: no-color.org: any value but the empty one switches it off.
        """
        return self.stderr_tty and not self.variables.get("NO_COLOR") and self.variables.get("TERM") != "dumb"

    def progress(self, option: str | None) -> str:
        """Return the wanted progress mode: *option*, `$BUILDKIT_PROGRESS`, or `auto`; not checked."""
        return option or self.variables.get("BUILDKIT_PROGRESS") or "auto"

    def log_lines(self) -> int:
        """Return how many lines of a running step the terminal view shows, from `$BUILDKIT_TTY_LOG_LINES`."""
        text = self.variables.get("BUILDKIT_TTY_LOG_LINES", "")
        return min(int(text), 1000) if text.isascii() and text.isdigit() and len(text) < 10 else DEFAULT_LOG_LINES

    def platform(self) -> str | None:
        """Return `$DOCKER_DEFAULT_PLATFORM`, or None."""
        return self.variables.get("DOCKER_DEFAULT_PLATFORM") or None

    def _xdg(self, name: str) -> Path | None:
        # The specification says that relative values are to be ignored.
        value = self.variables.get(name, "")
        return Path(value) if value.startswith("/") else None


def _find_home(variables: Mapping[str, str]) -> Path | None:
    home = variables.get("HOME", "")
    if home.startswith("/"):
        return Path(home)
    import pwd  # noqa: PLC0415  (loads nss modules; $HOME is nearly always there)

    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return None
    return Path(home) if home.startswith("/") else None


def _make_private_folder(path: Path, uid: int) -> Path:
    import stat  # noqa: PLC0415  (only users without a home come here)

    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise UsageError(f"no folder for the store can be made: `{path}`", hint="name one with --root") from error
    if found.st_uid != uid or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o022:
        raise UsageError(f"folder for the store belongs to someone else: `{path}`", hint="name another with --root")
    return path


def _is_tty(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def _terminal_size() -> tuple[int, int]:
    try:
        size = os.get_terminal_size(2)
    except OSError:
        return _DEFAULT_SIZE
    return (size.columns or _DEFAULT_SIZE[0], size.lines or _DEFAULT_SIZE[1])
