"""The command under test, as one user with one root."""

from __future__ import annotations

import grp
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pwd
    from collections.abc import Mapping
    from pathlib import Path

PATIENCE = 180
"""Seconds after which a command is taken to hang."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user of this machine. *groups* are its supplementary groups."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str

    @classmethod
    def of(cls, entry: pwd.struct_passwd) -> Account:
        """Return the account of an entry of the user database."""
        groups = tuple(group.gr_gid for group in grp.getgrall() if entry.pw_name in group.gr_mem)
        return cls(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid, groups=groups, home=entry.pw_dir)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a command ended and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """The lines of standard output."""
        return self.out.splitlines()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pybuild:
    """The command as *account*: call it with arguments. *folder* belongs to the account and holds its root."""

    program: tuple[str, ...]
    account: Account
    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """The root of the store."""
        return self.folder / "root"

    @property
    def images(self) -> Path:
        """The OCI image layout in the root."""
        return self.root / "images"

    def __call__(self, *arguments: str, status: int | None = 0, stdin: bytes = b"") -> Done:
        """Run to the end and check the exit status; None means that any will do."""
        with self.start(*arguments) as process:
            try:
                out, err = process.communicate(stdin, timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = process.communicate()
                raise AssertionError(f"{arguments} hangs:\n{err.decode(errors='replace')}") from None
        done = Done(
            status=process.returncode,
            out=out.decode(errors="surrogateescape"),
            err=err.decode(errors="surrogateescape"),
        )
        if status is not None:
            assert done.status == status, f"{arguments} ended with {done.status}:\n{done.out}\n{done.err}"
        return done

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start without waiting; all three streams are pipes."""
        return subprocess.Popen(  # the caller closes it
            [*self.program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            env=self.environment(),
            **self.identity(),
        )

    def environment(self) -> dict[str, str]:
        """Return the whole environment of the command; nothing of the tests' own gets in."""
        return {
            "HOME": str(self.folder),
            "USER": self.account.name,
            "LANG": "C.UTF-8",
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYBUILD_ROOT": str(self.root),
            **self.variables,
        }

    def identity(self) -> dict[str, object]:
        """Return what makes `subprocess` start a program as the account."""
        if os.geteuid() == self.account.uid:
            return {}
        return {"user": self.account.uid, "group": self.account.gid, "extra_groups": list(self.account.groups)}

    def run_other(self, *command: str, status: int = 0) -> Done:
        """Run another program as the same user in the same folder."""
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=PATIENCE,
            cwd=self.folder,
            env=self.environment(),
            **self.identity(),
        )
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        assert done.returncode == status, f"{command} ended with {done.returncode}:\n{out}\n{err}"
        return Done(status=done.returncode, out=out, err=err)

    def context(self, files: Mapping[str, str], name: str = "context") -> str:
        """Write a context with these files, owned by the account; a file that starts with `#!` is executable."""
        folder = self.folder / name
        for path, text in files.items():
            file = folder / path
            self._make_folders(file.parent)
            file.write_text(text)
            file.chmod(0o755 if text.startswith("#!") else 0o644)
            self._give(file)
        return str(folder)

    def remove(self) -> None:
        """Remove the folder with everything in it, of whatever id it is."""
        if os.geteuid() != 0:
            mapped = ["unshare", "--user", "--map-root-user", "--map-auto", "rm", "-rf", "--", str(self.folder)]
            subprocess.run(mapped, capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make_folders(self, folder: Path) -> None:
        if not folder.exists():
            self._make_folders(folder.parent)
            folder.mkdir()
            self._give(folder)

    def _give(self, path: Path) -> None:
        if os.geteuid() != self.account.uid:
            os.chown(path, self.account.uid, self.account.gid)
