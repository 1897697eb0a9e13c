"""A git repository made for a test, and how to serve it as plain files."""

from __future__ import annotations

import os
import subprocess


class Repository:
    """A repository in *folder*; every commit has the same author and a time of its own."""

    def __init__(self, folder):
        self.folder = folder
        self._time = 1_700_000_000
        folder.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main", ".")

    def git(self, *arguments):
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "a",
            "GIT_AUTHOR_EMAIL": "a@b",
            "GIT_COMMITTER_NAME": "a",
            "GIT_COMMITTER_EMAIL": "a@b",
            "GIT_AUTHOR_DATE": f"{self._time} +0000",
            "GIT_COMMITTER_DATE": f"{self._time} +0000",
            "GIT_ALLOW_PROTOCOL": "file",
        }
        done = subprocess.run(
            ["git", *arguments], cwd=self.folder, env=environ, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def commit(self, files, message="change"):
        """Write *files* (path to text; None removes) and commit; return the commit."""
        self._time += 100
        for name, text in files.items():
            path = self.folder / name
            if text is None:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def add_submodules(self, urls):
        """Commit submodules (path to address) of the commit of this repository, without fetching them."""
        commit = self.git("rev-parse", "HEAD")
        lines = [f'[submodule "{path}"]\n\tpath = {path}\n\turl = {url}\n' for path, url in urls.items()]
        (self.folder / ".gitmodules").write_text("".join(lines))
        self.git("add", ".gitmodules")
        for path in urls:
            self.git("update-index", "--add", "--cacheinfo", f"160000,{commit},{path}")
        self.git("commit", "--quiet", "-m", "submodules")

    @property
    def time(self):
        return self._time

    def serve_to(self, bare):
        """Make a bare copy in *bare* that plain HTTP can serve."""
        subprocess.run(
            ["git", "clone", "--quiet", "--bare", str(self.folder), str(bare)], check=True, capture_output=True
        )
        subprocess.run(["git", "-C", str(bare), "update-server-info"], check=True, capture_output=True)
