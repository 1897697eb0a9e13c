"""Tests of builder.cli.environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from builder.cli.environment import Environment, _find_home
from builder.errors import UsageError


def _environment(home="/home/a", uid=1000, cwd="/desk", **variables):
    return Environment(variables=variables, cwd=Path(cwd), home=None if home is None else Path(home), uid=uid)


@pytest.mark.parametrize(
    ("option", "environment", "root"),
    [
        ("/o", _environment(PYBUILD_ROOT="/v"), "/o"),
        ("o", _environment(), "/desk/o"),
        (None, _environment(PYBUILD_ROOT="/v", XDG_DATA_HOME="/d"), "/v"),
        (None, _environment(XDG_DATA_HOME="/d"), "/d/pybuild"),
        (None, _environment(XDG_DATA_HOME="relative"), "/home/a/.local/share/pybuild"),
        (None, _environment(uid=0), "/var/lib/pybuild"),
        (None, _environment(uid=0, XDG_DATA_HOME="/d"), "/d/pybuild"),
    ],
    ids=["option", "relative option", "variable", "xdg", "relative xdg", "root", "root with xdg"],
)
def test_root_is_chosen_in_order(option, environment, root):
    """The option wins over the variable, that over XDG, that over the default."""
    assert environment.root(option) == Path(root)


def test_root_without_home_is_a_private_folder():
    """A user with no home and no passwd entry still gets a store, one that nobody else can write."""
    if os.getuid() != 0:
        pytest.skip("needs to become a user without passwd entry")
    path = Path("/var/tmp/pybuild-54321")
    child = os.fork()
    if child == 0:
        os.setgid(54321)
        os.setuid(54321)
        found = _find_home({}) is None and _environment(home=None, uid=54321).root(None) == path
        os._exit(0 if found and _environment(home=None, uid=54321).root(None) == path else 1)
    _, status = os.waitpid(child, 0)
    mode, owner = path.stat().st_mode & 0o777, path.stat().st_uid
    path.rmdir()

    assert (status, mode, owner) == (0, 0o700, 54321)


def test_root_without_home_refuses_a_folder_of_someone_else():
    """A folder that another user made in advance is not used."""
    if os.getuid() != 0:
        pytest.skip("needs to make a folder for another user")
    path = Path("/var/tmp/pybuild-54322")
    path.mkdir(exist_ok=True)
    try:
        with pytest.raises(UsageError, match="belongs to someone else: `/var/tmp/pybuild-54322`"):
            _environment(home=None, uid=54322).root(None)
    finally:
        path.rmdir()


def test_auth_files_are_those_of_containers_and_docker():
    """Credentials are looked for where the container tools keep them."""
    environment = _environment(XDG_RUNTIME_DIR="/run/user/1000")

    assert environment.auth_files() == (
        Path("/run/user/1000/containers/auth.json"),
        Path("/home/a/.config/containers/auth.json"),
        Path("/home/a/.docker/config.json"),
    )


def test_auth_file_can_be_named():
    """REGISTRY_AUTH_FILE replaces all others; DOCKER_CONFIG moves docker's."""
    assert _environment(REGISTRY_AUTH_FILE="a.json").auth_files() == (Path("/desk/a.json"),)
    assert _environment(DOCKER_CONFIG="/dc").auth_files()[-1] == Path("/dc/config.json")


def test_auth_files_without_home_are_few():
    """Without a home only the runtime folder is left."""
    assert _environment(home=None).auth_files() == (Path("/run/containers/1000/auth.json"),)


def test_login_file_is_one_that_exists(tmp_path):
    """Login goes to the file that is in use, else to one that outlives a reboot."""
    environment = _environment(home=str(tmp_path), XDG_RUNTIME_DIR=str(tmp_path / "run"))
    assert environment.login_file() == tmp_path / ".config/containers/auth.json"

    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text("{}")
    assert environment.login_file() == tmp_path / ".docker/config.json"


def test_registries_files_are_user_then_system(tmp_path):
    """The user's file stands first; folders of drop-ins only if they exist."""
    environment = _environment(home=str(tmp_path))
    dropins = tmp_path / ".config/containers/registries.conf.d"
    dropins.mkdir(parents=True)
    files = environment.registries_files()

    assert files[:2] == (tmp_path / ".config/containers/registries.conf", Path("/etc/containers/registries.conf"))
    assert files[-1] == dropins


def test_registries_file_can_be_named():
    """CONTAINERS_REGISTRIES_CONF replaces all others."""
    assert _environment(CONTAINERS_REGISTRIES_CONF="/r.conf").registries_files() == (Path("/r.conf"),)


def test_certificate_folders_are_those_of_containers_and_docker():
    """The user's folder counts most."""
    assert _environment().certificate_folders() == (
        Path("/home/a/.config/containers/certs.d"),
        Path("/etc/containers/certs.d"),
        Path("/etc/docker/certs.d"),
    )


@pytest.mark.parametrize(
    ("text", "lines"), [("", 6), ("0", 0), ("12", 12), ("-1", 6), ("x", 6), ("99999", 1000)], ids=repr
)
def test_log_lines_are_read_from_the_environment(text, lines):
    """A value that is no number leaves the default."""
    assert _environment(BUILDKIT_TTY_LOG_LINES=text).log_lines() == lines


@pytest.mark.parametrize(
    ("tty", "variables", "color"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (True, {"TERM": "dumb"}, False),
    ],
    ids=str,
)
def test_color_is_for_terminals_that_want_it(tty, variables, color):
    """NO_COLOR with any value but the empty one switches colour off."""
    environment = Environment(variables=variables, cwd=Path("/"), home=None, stderr_tty=tty)

    assert environment.color() is color


def test_progress_comes_from_option_then_variable():
    """The option wins over BUILDKIT_PROGRESS."""
    assert _environment().progress(None) == "auto"
    assert _environment(BUILDKIT_PROGRESS="plain").progress(None) == "plain"
    assert _environment(BUILDKIT_PROGRESS="plain").progress("tty") == "tty"


def test_current_folder_that_is_gone_is_a_clear_error(tmp_path):
    """Starting in a removed folder is told, not a traceback."""
    gone = tmp_path / "gone"
    gone.mkdir()
    code = (
        "import os, sys; os.rmdir(os.getcwd()); sys.argv = ['pybuild', 'images']\n"
        "from builder.cli.main import run; run()"
    )
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=gone,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr.startswith("pybuild: error: the current directory cannot be read")


@pytest.mark.parametrize(
    ("option", "variables", "isolation"),
    [
        (None, {}, "auto"),
        (None, {"PYBUILD_ISOLATION": ""}, "auto"),
        (None, {"PYBUILD_ISOLATION": "chroot"}, "chroot"),
        ("single-id", {"PYBUILD_ISOLATION": "chroot"}, "single-id"),
    ],
)
def test_isolation_is_chosen_in_order(option, variables, isolation):
    """The option wins over the variable; without either the best is taken."""
    assert _environment(**variables).isolation(option) == isolation


def test_unknown_isolation_is_refused_with_those_there_are():
    """The hint names all of them."""
    with pytest.raises(UsageError, match="unknown isolation: `jail`") as caught:
        _environment().isolation("jail")

    assert caught.value.hint == "one of auto, subids, single-id, chroot, none"
