"""Tests of builder.cli.main."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import registry
from builder import __version__
from builder.cli.environment import Environment
from builder.cli.main import main

ROOT = Path(__file__).parents[3]


def _main(*words, cwd="/", **fields):
    return main(words, Environment(variables={}, cwd=Path(cwd), home=None, **fields))


def _start(code, *, cwd="/", **options):
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


RUN = "import sys; sys.argv = ['pybuild', *{words!r}]\nfrom builder.cli.main import run\nrun()"


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",), ("help",)], ids=repr)
def test_help_is_data(words, capsys):
    """Help goes to standard output, and asking for it is no error."""
    assert _main(*words) == 0
    assert capsys.readouterr().out.startswith("Usage:  pybuild [VERB]")


@pytest.mark.parametrize("words", [("help", "tag"), ("tag", "--help"), ("tag", "x", "-h")], ids=repr)
def test_help_of_a_verb_can_be_asked_for_anywhere(words, capsys):
    """`help VERB` and `VERB --help` are the same."""
    assert _main(*words) == 0
    assert capsys.readouterr().out.startswith("Usage:  pybuild tag [OPTIONS] SOURCE TARGET")


def test_version_is_printed(capsys):
    """`--version` is one line."""
    assert _main("--version") == 0
    assert capsys.readouterr().out == f"pybuild {__version__}\n"


def test_first_word_that_is_no_verb_means_build(capsys):
    """What is not a verb belongs to build."""
    assert _main("--taag", "x") == 2
    assert (
        capsys.readouterr().err
        == "pybuild: error: unknown option of `pybuild build`: `--taag`\n\nhint: did you mean --tag?\n"
    )


def test_root_may_stand_before_the_verb(tmp_path, capsys):
    """`--root` is common to all verbs."""
    assert _main("--root", str(tmp_path), "images") == 0
    assert capsys.readouterr().out == "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n"


def test_foreign_package_is_recognised(monkeypatch, capsys):
    """A package of another distribution under one of our names stops everything with an explanation."""
    monkeypatch.setattr(registry, "__version__", "9")

    assert _main("--version") == 2
    error = capsys.readouterr().err
    assert error.startswith("pybuild: error: package does not belong to pybuild")
    assert "`registry`" in error


def test_reader_that_goes_away_is_no_error():
    """`pybuild --help | head -1` is quiet."""
    read, write = os.pipe()
    os.close(read)
    process = subprocess.Popen(
        [sys.executable, "-c", RUN.format(words=["--help"])],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=write,
        stderr=subprocess.PIPE,
    )
    os.close(write)
    _, error = process.communicate()

    assert (process.returncode, error) == (0, b"")


def test_current_folder_is_not_importable(tmp_path):
    """A hostile build context cannot bring its own modules."""
    for name in ("registry", "csv", "ipaddress"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('hostile')\n")
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    code = (
        "import sys; sys.path.insert(0, ''); sys.path.insert(0, sys.argv[1] if len(sys.argv) > 1 else '.')\n"
        "sys.path[:0] = ['', '.', __import__('os').getcwd()]\n"
    )
    code = f"import sys\nsys.path.append({str(ROOT)!r})\nimport builder.cli.main\n{code}" + RUN.format(
        words=["build", "--add-host", "a:b", "."]
    )
    process = _start(code, cwd=tmp_path)
    _, error = process.communicate()

    assert "hostile" not in error
    assert "option --add-host: not an address: `b`" in error
    assert process.returncode == 2


@pytest.mark.parametrize(("signal", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_signal_ends_with_its_code(signal, code):
    """Interrupting and terminating are told apart from failures, and resources are given back on the way."""
    program = (
        "import os, signal, sys\nimport builder.cli.verbs.tag as tag\n"
        f"def run(*_):\n    try:\n        os.kill(os.getpid(), signal.{signal})\n        signal.pause()\n"
        "    finally:\n        print('given back')\n"
        "tag.run = run\n" + RUN.format(words=["tag", "a", "b"])
    )
    process = _start(program)
    out, error = process.communicate()

    assert process.returncode == code
    assert out == "given back\n"
    assert error in {"ERROR: interrupted\n", "ERROR: terminated\n"}


@pytest.mark.parametrize(("prelude", "before"), [("", ""), ("sys.settrace(lambda *_: None)\n", "before\n")])
def test_end_leaves_out_what_the_kernel_does(prelude, before):
    """What is written arrives, and what the program registers is called. What others have, if the code is traced."""
    program = (
        "import atexit, sys\natexit.register(print, 'before')\nimport builder.cli.verbs.tag as tag\n"
        "def run(*_):\n    atexit.register(print, 'registered')\n    print('written', end=' ')\n    return 3\n"
        "tag.run = run\n" + prelude + RUN.format(words=["tag", "a", "b"])
    )
    process = _start(program)
    out, error = process.communicate()

    assert (process.returncode, out, error) == (3, f"written registered\n{before}", "")


def test_bug_is_reported_with_code_70(monkeypatch, capsys):
    """A fault of ours shows a traceback and asks to be reported."""
    from builder.cli.verbs import tag  # noqa: PLC0415

    monkeypatch.setattr(tag, "run", lambda *_: 1 // 0)

    assert _main("tag", "a", "b") == 70
    error = capsys.readouterr().err
    assert "ZeroDivisionError" in error
    assert "please report it" in error
