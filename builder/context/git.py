"""Git as a source: what an address asks for, and a checkout of it.

A *git source* is a repository with what is wanted of it. Its *commit* is asked of the server without fetching anything;
a checkout is made of that commit alone where the server allows it, else of all branches and tags.

A repository is untrusted. git runs without any configuration of the user or system, without hooks, templates and
prompts, and may use https, http, ssh and git only; `file` and everything that starts programs is closed to it and to
its submodules. Credentials, in an address or of the build, never reach an argument, a file, or a text: git gets them
as a header, in its environment, for the origin of the address alone. git would take that header along wherever a server
sends it, so with credentials it follows no redirect; without, it does.

Source: BuildKit, util/gitutil and frontend/dockerfile/dfgitutil; git-fetch(1), git(1), section "Environment Variables".
"""

from __future__ import annotations

import base64
import os
import re
import shlex
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from builder.context.address import check_address
from builder.context.authorization import OF_REPOSITORIES, token_hint
from builder.errors import ContextError, SourceError
from runtime.paths import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from builder.request import SshSource
    from builder.source import Span

PROTOCOLS: Final = ("https", "http", "ssh", "git")
"""How a repository may be reached."""

PASSED_VARIABLES: Final = (
    "PATH",
    "SSH_AUTH_SOCK",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
)
"""Variables of the user that git sees; all others are kept from it."""

_SCP: Final = re.compile(r"[A-Za-z0-9._-]+@[A-Za-z0-9.-]+:(?!//)[^:]+")
_SCHEMES: Final = ("ssh://", "git://", "file://")
_FULL_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_COMMIT: Final = re.compile(r"[0-9a-f]{7,64}")
_TRUE: Final = {"", "1", "true", "t"}
_FALSE: Final = {"0", "false", "f"}
_DIRECTORY: Final = "checkout"
_TIMEOUT: Final = 3600
_ASKS_FOR_CREDENTIALS: Final = ("fatal: could not read Username", "fatal: Authentication failed")
_SSH_FAILED: Final = "fatal: Could not read from remote repository."
_REDIRECTED: Final = re.compile(r"returned error: 30[12378]\b")
_SETTINGS: Final = f"""\
[core]
\thooksPath = {os.devnull}
\tfsmonitor = false
\tautocrlf = false
\tprotectHFS = true
\tprotectNTFS = true
[gc]
\tauto = 0
[maintenance]
\tauto = false
[safe]
\tdirectory = *
[advice]
\tdetachedHead = false
"""


class GitSource(NamedTuple):
    """A repository and what is wanted of it.

    Attributes:
        url: of the repository, credentials included; show `shown` instead.
        ref: a branch, tag, full reference or full commit; empty for the default branch.
        commit: what the commit must be or begin with; empty if any will do.
        subdir: the directory that counts, relative to the top; empty for the top.
        keep_git_dir: whether `.git` stays.
        submodules: whether submodules are fetched.
        mtime_commit: whether files get the time of the commit instead of that of the checkout.
    """

    url: str
    ref: str = ""
    commit: str = ""
    subdir: str = ""
    keep_git_dir: bool = False
    submodules: bool = True
    mtime_commit: bool = False

    @property
    def shown(self) -> str:
        """The address without credentials."""
        return split_credentials(self.url)[0] + (f"#{self.ref}" if self.ref else "")

    @property
    def known_commit(self) -> str:
        """The whole commit if the address alone says it, else empty."""
        return next((text for text in (self.commit, self.ref) if _FULL_COMMIT.fullmatch(text)), "")


class Checkout(NamedTuple):
    """A checkout: the folder *top*, the whole id of its *commit*, and when that was made, in seconds."""

    top: Path
    commit: str
    time: int


def is_git_url(text: str) -> bool:
    """Tell whether an address is one of a git repository, whatever is wanted of it."""
    bare = re.split(r"[?#]", text, maxsplit=1)[0]
    if bare.startswith(("http://", "https://")):
        return bare.partition("://")[2].partition("/")[2].endswith(".git")
    return bare.startswith(_SCHEMES) or _SCP.fullmatch(bare) is not None


def parse_git_url(text: str, *, span: Span | None = None) -> GitSource:
    """Read an address with its fragment `#ref:subdir` or its query.

    Raises:
        ContextError: an unknown or repeated key, a value that is missing, two that contradict each other, a reference
            that cannot be one, a host or port that cannot be read.
    """
    address, _, fragment = text.partition("#")
    bare, _, query = address.partition("?")
    if bare.startswith("github.com/"):
        bare = f"https://{bare}"
    if "://" in bare and not bare.startswith("file://"):
        check_address(bare, span=span)
    try:
        values = _parse_query(query)
        ref, _, subdir = fragment.partition(":")
        tag, branch = values.pop("tag", ""), values.pop("branch", "")
        for more in (
            values.pop("ref", ""),
            tag and f"refs/tags/{tag.removeprefix('refs/tags/')}",
            branch and f"refs/heads/{branch.removeprefix('refs/heads/')}",
        ):
            ref = _agree("ref", ref, more)
        commit = _agree("checksum", values.pop("commit", ""), values.pop("checksum", ""))
        if commit and not _COMMIT.fullmatch(commit):
            raise ContextError(f"invalid commit: `{commit}`", hint="write 7 to 40 hex digits in lower case")
        source = GitSource(
            url=bare,
            ref=ref,
            commit=commit,
            subdir=_agree("subdir", subdir, values.pop("subdir", "")).strip("/"),
            keep_git_dir=_boolean("keep-git-dir", values.pop("keep-git-dir", "0")),
            submodules=_boolean("submodules", values.pop("submodules", "1")),
            mtime_commit=_choose_mtime(values.pop("mtime", "checkout")),
        )
        _boolean("fetch-by-commit", values.pop("fetch-by-commit", "0"))
        _check_ref(source.ref)
    except ContextError as error:
        error.span = error.span or span
        raise
    return source


def with_checksum(source: GitSource, checksum: str, *, span: Span | None = None) -> GitSource:
    """Return *source* with the commit that `--checksum` wants.

    Raises:
        ContextError: not a commit, or another one than the address wants.
    """
    if not _COMMIT.fullmatch(checksum):
        raise ContextError(f"invalid checksum of a commit: `{checksum}`", hint="write it in hex digits", span=span)
    if source.commit and not checksum.startswith(source.commit) and not source.commit.startswith(checksum):
        raise ContextError(f"checksum conflicts: `{source.commit}` vs `{checksum}`", span=span)
    return source._replace(commit=max(source.commit, checksum, key=len))


def split_credentials(url: str) -> tuple[str, str]:
    """Take user and password out of an http address; return it, and what the Authorization header says of them."""
    if not url.startswith(("http://", "https://")):
        return url, ""
    parts = urlsplit(url)
    userinfo, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, ""
    user, _, password = userinfo.partition(":")
    pair = base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode("ascii")
    return urlunsplit((parts.scheme, host, parts.path, parts.query, "")), f"Basic {pair}"


class Git:
    """Runs git on repositories of others.

    Args:
        folder: for checkouts, belongs to this build alone.
        environ: variables of the user, of which `PASSED_VARIABLES` are used.
        protocols: what may be used to reach repositories.
        telling: tells of a fetch for the time of a block.
        authorize: gives the Authorization header for an address, empty if there is none.
        ssh: the agent or the keys for ssh; None for those that ssh finds by itself.
    """

    def __init__(
        self,
        folder: Path,
        environ: Mapping[str, str],
        *,
        protocols: Sequence[str] = PROTOCOLS,
        telling: Callable[[str], AbstractContextManager[object]] = nullcontext,
        authorize: Callable[[str], str] = lambda _: "",
        ssh: SshSource | None = None,
    ) -> None:
        self._folder = folder
        self._telling = telling
        self._authorize = authorize
        self._environ = {name: environ[name] for name in PASSED_VARIABLES if environ.get(name)}
        self._environ |= _ssh_environ(ssh)
        self._authorities = environ.get("SSL_CERT_FILE", "")
        self._protocols = tuple(protocols)
        self._count = 0
        self._found: dict[tuple[str, str], tuple[str, str]] = {}

    def resolve(self, source: GitSource, *, span: Span | None = None) -> str:
        """Find the commit a source stands for; asks the server unless the source says all of it.

        Raises:
            SourceError: there is no such reference, or it is another commit than the wanted one.
        """
        if source.known_commit:
            return source.known_commit
        if source.commit and not source.ref:
            return source.commit  # a part of one, which only the whole history makes whole
        commit, object_ = self._look_up(source, span)
        if source.commit and not commit.startswith(source.commit) and not object_.startswith(source.commit):
            raise _mismatch(source, commit, span)
        return commit

    def checkout(self, source: GitSource, *, span: Span | None = None) -> Checkout:
        """Make a checkout. The caller removes the folder.

        Raises:
            SourceError: it cannot be fetched, or is another commit than the wanted one.
        """
        self._count += 1
        folder = self._folder / f"git-{self._count}"
        folder.mkdir(mode=0o700)
        top = folder / _DIRECTORY
        self._run(source, ["init", "--quiet", "--template=", "--", str(top)], cwd=folder, span=span)
        address, _ = split_credentials(source.url)
        self._run(source, ["remote", "add", "origin", address], cwd=top, span=span)
        with self._telling(f"[internal] fetch {source.shown}"):
            commit = self._fetch(source, top, span)
        if source.commit and not commit.startswith(source.commit):
            raise _mismatch(source, commit, span)
        self._run(source, ["checkout", "--quiet", "--force", "--detach", commit, "--"], cwd=top, span=span)
        if source.submodules and (top / ".gitmodules").is_file():
            self._fetch_submodules(source, top, span)
        time = int(self._run(source, ["log", "-1", "--no-show-signature", "--format=%ct"], cwd=top, span=span))
        if source.mtime_commit:
            _set_times(top, time)
        if source.keep_git_dir:
            (top / ".git" / "FETCH_HEAD").unlink(missing_ok=True)
        else:
            _remove_git_directories(top)
        return Checkout(top=top, commit=commit, time=time)

    def _look_up(self, source: GitSource, span: Span | None) -> tuple[str, str]:
        """Ask the server what a reference is; return the commit, and the object that names it (an annotated tag)."""
        key = (source.url, source.ref)
        if key not in self._found:
            address, _ = split_credentials(source.url)
            wanted = [source.ref, f"{source.ref}^{{}}"] if source.ref else ["HEAD"]
            text = self._run(source, ["ls-remote", "--", address, *wanted], cwd=self._folder, span=span)
            lines = [line.split("\t", 1) for line in text.splitlines()]
            objects = {line[1]: line[0] for line in lines if len(line) == 2 and _FULL_COMMIT.fullmatch(line[0])}
            name = next((name for name in _candidates(source.ref) if name in objects), None)
            if name is None:
                hint = None
                if _COMMIT.fullmatch(source.ref):
                    hint = f"for a commit that is cut short, write ?commit={source.ref}"
                raise SourceError(
                    f"repository does not contain ref {source.ref or 'HEAD'}: `{source.shown}`", hint=hint, span=span
                )
            self._found[key] = (objects.get(f"{name}^{{}}", objects[name]), objects[name])
        return self._found[key]

    def _fetch(self, source: GitSource, top: Path, span: Span | None) -> str:
        """Bring the wanted commit into the repository at *top* and return it whole."""
        commit = self.resolve(source, span=span)
        if source.known_commit and source.ref and source.ref != source.known_commit:
            named, object_ = self._look_up(source, span)
            if not (named.startswith(commit) or object_.startswith(commit)):
                raise _mismatch(source, named, span)
            commit = named
        if _FULL_COMMIT.fullmatch(commit) and (
            self._tries(source, ["fetch", "--quiet", "--no-tags", "--depth=1", "origin", commit], top)
        ):
            return commit
        # Servers without upload-pack (plain files over HTTP), and those that give out named commits only.
        everything = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"]
        self._run(source, ["fetch", "--quiet", "--no-tags", "origin", *everything], cwd=top, span=span)
        try:
            wanted = f"{commit}^{{commit}}"
            return self._run(source, ["rev-parse", "--verify", "--end-of-options", wanted], cwd=top, span=span).strip()
        except SourceError as error:
            raise SourceError(f"repository does not contain commit {commit}: `{source.shown}`", span=span) from error

    def _fetch_submodules(self, source: GitSource, top: Path, span: Span | None) -> None:
        update = ["submodule", "--quiet", "update", "--init", "--recursive", "--force"]
        if not self._tries(source, [*update, "--depth=1"], top, submodules=True):
            self._run(source, update, cwd=top, span=span, submodules=True)

    def _tries(self, source: GitSource, arguments: Sequence[str], top: Path, *, submodules: bool = False) -> bool:
        try:
            self._run(source, arguments, cwd=top, span=None, submodules=submodules)
        except SourceError:
            return False
        return True

    def _run(
        self, source: GitSource, arguments: Sequence[str], *, cwd: Path, span: Span | None, submodules: bool = False
    ) -> str:
        import subprocess  # noqa: PLC0415  only for git

        protocols = [name for name in self._protocols if not submodules or name != "file"]
        try:
            done = subprocess.run(
                ["git", *arguments],
                cwd=cwd,
                env=self._environment(source, protocols),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                umask=0o022,
                timeout=_TIMEOUT,
            )
        except FileNotFoundError as error:
            raise SourceError(
                f"git is not installed, and is needed for `{source.shown}`", hint="install git", span=span
            ) from error
        except subprocess.TimeoutExpired as error:
            raise SourceError(f"git takes longer than an hour: `{source.shown}`", span=span) from error
        if done.returncode:
            reason, hint = _explain(source, done.stderr.decode("utf-8", "replace"))
            reason = reason or f"git ended with {done.returncode}"
            raise SourceError(f"cannot fetch from git, {reason}: `{source.shown}`", hint=hint, span=span)
        return done.stdout.decode("utf-8", "surrogateescape")

    def _environment(self, source: GitSource, protocols: Sequence[str]) -> dict[str, str]:
        environ = {
            **self._environ,
            "LC_ALL": "C",
            "HOME": str(self._folder),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "true",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(self._settings()),
            "GIT_ALLOW_PROTOCOL": ":".join(protocols),
            "GIT_LFS_SKIP_SMUDGE": "1",
        }
        address, authorization = split_credentials(source.url)
        if authorization := authorization or self._authorize(address):
            parts = urlsplit(address)
            origin = f"http.{parts.scheme}://{parts.netloc}/"
            environ["GIT_CONFIG_COUNT"] = "2"
            environ["GIT_CONFIG_KEY_0"] = f"{origin}.extraHeader"
            environ["GIT_CONFIG_VALUE_0"] = f"Authorization: {authorization}"
            environ["GIT_CONFIG_KEY_1"] = f"{origin}.followRedirects"
            environ["GIT_CONFIG_VALUE_1"] = "false"
        return environ

    def _settings(self) -> Path:
        """Write what takes the place of the user's configuration; unlike the environment it holds for submodules."""
        path = self._folder / "gitconfig"
        if not path.exists():
            text = _SETTINGS
            if self._authorities:
                quoted = self._authorities.replace("\\", "\\\\").replace('"', '\\"')
                text += f'[http]\n\tsslCAInfo = "{quoted}"\n'
            path.write_text(text)
        return path


def _ssh_environ(source: SshSource | None) -> dict[str, str]:
    """Have git use ssh without questions, with the keys or the agent of `--ssh default` if it was given."""
    words = ["ssh", "-o", "BatchMode=yes"]
    if source is None:
        return {"GIT_SSH_COMMAND": " ".join(words)}
    words += ["-o", "IdentitiesOnly=yes"] if source.keys else []
    words += [word for key in source.keys for word in ("-i", str(key))]
    agent = {"SSH_AUTH_SOCK": str(source.socket)} if source.socket else {}
    return {"GIT_SSH_COMMAND": shlex.join(words), **agent}


def _explain(source: GitSource, output: str) -> tuple[str, str | None]:
    """Find in what git wrote to its standard error why it failed, and what can be done about it."""
    lines = output.strip().splitlines()
    said = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[-1] if lines else "")
    reason = said.removeprefix("fatal: ").removeprefix("error: ")
    if said.startswith(_ASKS_FOR_CREDENTIALS):
        return reason, token_hint(source.url, OF_REPOSITORIES)
    if _REDIRECTED.search(said):
        return reason, "it is somewhere else by now, where credentials do not follow; write the new address"
    if said == _SSH_FAILED and (before := lines[: lines.index(said)]):
        return _explain_ssh(before[-1])
    return reason, None


def _explain_ssh(said: str) -> tuple[str, str | None]:
    if said.startswith("Host key verification failed"):
        return "the key of the host is not known to ssh", "add it to ~/.ssh/known_hosts, after a look at it"
    if "Permission denied" in said:
        return "the host takes no key of yours", "give one that it takes: --ssh default=FILE, or add it to your agent"
    return said, None


def _candidates(ref: str) -> tuple[str, ...]:
    """List what a reference can stand for, most likely first: a branch wins over a tag, as in git-checkout(1)."""
    if not ref:
        return ("HEAD",)
    partial = ref.removeprefix("refs/")
    if ref.startswith(("refs/heads/", "refs/tags/")):
        return (ref,)
    return (f"refs/heads/{ref}", f"refs/tags/{ref}", f"refs/{partial}", ref)


def _parse_query(query: str) -> dict[str, str]:
    values: dict[str, str] = {}
    known = {
        "ref",
        "tag",
        "branch",
        "commit",
        "checksum",
        "subdir",
        "keep-git-dir",
        "submodules",
        "mtime",
        "fetch-by-commit",
    }
    valueless = {"keep-git-dir", "submodules", "fetch-by-commit"}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in known:
            from builder.dockerfile.suggest import nearest  # noqa: PLC0415  only for typing errors

            near = nearest(key, known)
            hint = f"did you mean {near}?" if near else f"known are {', '.join(sorted(known))}"
            raise ContextError(f'unexpected query "{key}"', hint=hint)
        if key in values:
            raise ContextError(f'query "{key}" has multiple values', hint="give it once")
        if not value and key not in valueless:
            raise ContextError(f'query "{key}" has no value', hint=f"write {key}=VALUE")
        values[key] = value
    return values


def _agree(what: str, one: str, other: str) -> str:
    if one and other and one != other:
        raise ContextError(f'{what} conflicts: "{one}" vs "{other}"', hint="name it once")
    return one or other


def _boolean(key: str, value: str) -> bool:
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise ContextError(f'invalid value of query "{key}": `{value}`', hint="write true or false")


def _choose_mtime(value: str) -> bool:
    if value not in {"checkout", "commit"}:
        raise ContextError(f'invalid value of query "mtime": `{value}`', hint="write checkout or commit")
    return value == "commit"


def _check_ref(ref: str) -> None:
    """Refuse what no reference can be, first of all what git would take for an option.

    Source: git-check-ref-format(1).
    """
    if ref.startswith(("-", "/", ".")) or ".." in ref or "@{" in ref or re.search(r"[\x00-\x20\x7f~^:?*\[\\]", ref):
        raise ContextError(f"invalid git ref: `{ref!a}`", hint="name a branch, a tag or a whole commit")


def _mismatch(source: GitSource, actual: str, span: Span | None) -> SourceError:
    return SourceError(
        f"expected checksum to match {source.commit}, got {actual}: `{source.shown}`",
        hint="the reference has moved; check what changed, then update the commit",
        span=span,
    )


def _remove_git_directories(top: Path) -> None:
    """Remove `.git` of the checkout and those of its submodules."""
    for folder, names, files in os.walk(top):
        if ".git" in names or ".git" in files:
            fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                remove_tree(fd, b".git")
            finally:
                os.close(fd)
            if ".git" in names:
                names.remove(".git")


def _set_times(top: Path, seconds: int) -> None:
    for folder, names, files in os.walk(top, topdown=False):
        for name in (*names, *files):
            os.utime(os.path.join(folder, name), (seconds, seconds), follow_symlinks=False)
    os.utime(top, (seconds, seconds))
