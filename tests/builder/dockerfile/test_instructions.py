"""Instructions and their checks."""

from __future__ import annotations

import pytest

from builder.dockerfile.directives import Directives
from builder.dockerfile.instructions import (
    Add,
    Arg,
    Cmd,
    CommandLine,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    InlineFile,
    Instruction,
    Label,
    Maintainer,
    OnBuild,
    Run,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
    parse_duration,
    parse_instruction,
    parse_on_build,
)
from builder.dockerfile.mounts import Device
from builder.dockerfile.parser import parse_nodes
from builder.errors import DockerfileError
from builder.source import SourceFile


def parse(text: str) -> Instruction:
    """Read one instruction."""
    (node,) = parse_nodes(SourceFile("Dockerfile", text))
    return parse_instruction(node)


def shell(text: str) -> CommandLine:
    """Make a command in shell form."""
    return CommandLine(words=(text,), shell_form=True)


def words(*values: str) -> CommandLine:
    """Make a command in exec form."""
    return CommandLine(words=values, shell_form=False)


NODE = parse_nodes(SourceFile("Dockerfile", "RUN x"))[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM a", From(node=NODE, image="a")),
        ("from --platform=$P h:5/a:1@sha256:0 As Build.1", From(node=NODE, image="h:5/a:1@sha256:0", platform="$P", name="build.1")),
        ('ARG A B=1 C= D="x y"', Arg(node=NODE, pairs=(("A", None), ("B", "1"), ("C", ""), ("D", '"x y"')))),
        ("ENV A=x\\\n  y=1", Env(node=NODE, pairs=(("A", "x"), ("y", "1")))),
        ("ENV A b  c=d", Env(node=NODE, pairs=(("A", "b  c=d"),), legacy=True)),
        ("ENV A=\\$B", Env(node=NODE, pairs=(("A", "\\$B"),))),
        ("LABEL \"a b\"='c' $d=e", Label(node=NODE, pairs=(('"a b"', "'c'"), ("$d", "e")))),
        ("EXPOSE 80 $P", Expose(node=NODE, ports=("80", "$P"))),
        ("VOLUME /a /b", Volume(node=NODE, paths=("/a", "/b"))),
        ('VOLUME [ "/a b" ]', Volume(node=NODE, paths=("/a b",))),
        ("USER a:b", User(node=NODE, user="a:b")),
        ("WORKDIR /a b", Workdir(node=NODE, path="/a b")),
        ("STOPSIGNAL $S", StopSignal(node=NODE, signal="$S")),
        ('SHELL ["/bin/bash", "-c"]', Shell(node=NODE, words=("/bin/bash", "-c"))),
        ("MAINTAINER A <a@b>", Maintainer(node=NODE, name="A <a@b>")),
        ('CMD ["$A", "\\u00e4\\ud83d\\ude00\\ud800"]', Cmd(node=NODE, command=words("$A", "\u00e4\U0001f600\ufffd"))),
        ("CMD ['a','b']", Cmd(node=NODE, command=shell("['a','b']"))),
        ("CMD []", Cmd(node=NODE, command=words())),
        ("CMD [NaN]", Cmd(node=NODE, command=shell("[NaN]"))),
        ("ENTRYPOINT []junk", Entrypoint(node=NODE, command=shell("[]junk"))),
        ('RUN ["echo", \'x\']', Run(node=NODE, command=shell("[\"echo\", 'x']"))),
        ("RUN [ -f /x ]", Run(node=NODE, command=shell("[ -f /x ]"))),
        ("RUN --network=NONE --security=insecure --device=v/c=d,required x",
         Run(node=NODE, command=shell("x"), network="none", security="insecure", devices=(Device(name="v/c=d", required=True),))),
        ("COPY a $b /c/", Copy(node=NODE, sources=("a", "$b"), destination="/c/")),
        ('COPY ["a b", "c"]', Copy(node=NODE, sources=("a b",), destination="c")),
        ("COPY --from=0 --chown=a:$b --chmod=u=rwX --link --parents --exclude=*.a --exclude=!b a b",
         Copy(node=NODE, sources=("a",), destination="b", from_="0", chown="a:$b", chmod="u=rwX", link=True, parents=True, exclude=("*.a", "!b"))),
        ("COPY <<A f << 'B' /x\n$1\nA\n2\nB\n",
         Copy(node=NODE, sources=("f",), destination="/x", files=(InlineFile(name="A", text="$1\n", expand=True), InlineFile(name="B", text="2\n", expand=False)))),
        ("COPY <<-A /x\n\ta\n\tA\n", Copy(node=NODE, sources=(), destination="/x", files=(InlineFile(name="A", text="a\n", expand=True),))),
        ("ADD --checksum=sha256:0 --keep-git-dir --unpack=false http://x/y /z",
         Add(node=NODE, sources=("http://x/y",), destination="/z", checksum="sha256:0", keep_git_dir=True, unpack=False)),
        ("HEALTHCHECK none", Healthcheck(node=NODE, test=("NONE",))),
        ("HEALTHCHECK --interval=1m30s --timeout=0 --start-period=1.5h --start-interval=5ms --retries=3 CMD curl  x",
         Healthcheck(node=NODE, test=("CMD-SHELL", "curl  x"), interval_ns=90 * 10**9, start_period_ns=5400 * 10**9, start_interval_ns=5 * 10**6, retries=3)),
        ('HEALTHCHECK cmd ["a","b"]', Healthcheck(node=NODE, test=("CMD", "a", "b"))),
        ("ONBUILD  rUn  a \\\n b", OnBuild(node=NODE, text="rUn  a  b", instruction=Run(node=NODE, command=shell("a  b")))),
    ],
    ids=lambda value: value.replace("\n", "|")[:40] if isinstance(value, str) else "",
)  # fmt: skip
def test_instruction_is_read(text: str, expected: Instruction) -> None:
    """Every instruction keeps its arguments unexpanded."""
    assert parse(text) == expected


def test_instruction_knows_its_text_and_place() -> None:
    """Original text, comments and lines come with every instruction."""
    instruction = parse("\n# why\n  RUN a \\\n  # c\n  b <<E\nx\nE\n")

    assert instruction.original == "RUN a   b <<E"
    assert instruction.comments == ("why",)
    assert (instruction.span.line, instruction.span.end_line) == (3, 7)


@pytest.mark.parametrize(
    ("text", "argument"),
    [
        ("RUN <<EOF\na\n$b\nEOF\n", "a\n$b\n"),
        ("RUN --mount=type=tmpfs,target=/x <<-EOF\n\ta\nEOF\n", "a\n"),
        ("RUN <<'A' sh -x\n\ta\nA\n", "<<'A' sh -x\n\ta\nA"),
        ("RUN cat <<A > /a && cat <<-B > /b\n1\nA\n\t2\n\tB\n", "cat <<A > /a && cat <<-B > /b\n1\nA\n\t2\nB"),
        ("RUN a \\\n b", "a  b"),
    ],
    ids=["script", "script without tabs", "arguments", "two", "plain"],
)
def test_run_gives_the_shell_one_text(text: str, argument: str) -> None:
    """A heredoc alone is the script; with anything around it the whole is put together for the shell."""
    run = parse(text)

    assert isinstance(run, Run)
    assert run.program is None
    assert run.shell_text == argument


def test_run_of_a_script_with_its_own_interpreter_is_a_program() -> None:
    """A script that begins with `#!` is executed as a file; with arguments around it, it is not."""
    program, text = parse("RUN <<EOF\n#!/bin/awk -f\nEOF\n"), parse("RUN <<EOF cat\n#!/bin/awk -f\nEOF\n")

    assert isinstance(program, Run)
    assert program.program is not None
    assert program.program.name == "EOF"
    assert isinstance(text, Run)
    assert text.program is None


def test_on_build_stores_heredocs_and_reads_them_back() -> None:
    """The text an image stores gives the same instruction in a child."""
    on_build = parse("ONBUILD COPY --from=x <<A <<-'B' /d/\n$a\nA\n\tb\n\tB\n")

    assert isinstance(on_build, OnBuild)
    assert on_build.text == "COPY --from=x <<A <<-'B' /d/\n$a\nA\n\tb\nB"
    assert parse_on_build(on_build.text) == on_build.instruction


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "onbuild trigger should be a single instruction"),
        ("RUN a\nRUN b", "onbuild trigger should be a single instruction"),
        ("FROM a", "FROM isn't allowed as an ONBUILD trigger"),
        ("onbuild run x", "chaining ONBUILD"),
        ("COPY a", "COPY requires at least two arguments"),
    ],
    ids=["empty", "two", "FROM", "chain", "wrong"],
)
def test_on_build_text_is_refused(text: str, message: str) -> None:
    """A trigger of a base image is one instruction that a trigger can be."""
    with pytest.raises(DockerfileError, match=message) as caught:
        parse_on_build(text, name="image:1")

    assert caught.value.span is not None
    assert caught.value.span.location.startswith("image:1:1")


def test_on_build_text_takes_the_escape_of_its_file() -> None:
    """Triggers from a file with another escape character are read with that."""
    arg = parse_on_build("ARG a=x` y b", directives=Directives(escape="`"))

    assert isinstance(arg, Arg)
    assert arg.pairs == (("a", "x` y"), ("b", None))


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0), ("1ns", 1), ("2us", 2000), ("2\u00b5s", 2000), ("2\u03bcs", 2000), ("1.5ms", 1_500_000), (".5s", 500_000_000),
        ("1h1m1s", 3661 * 10**9), ("-1s", -(10**9)), ("+1.s", 10**9), ("0.0000000001h", 360),
    ],
)  # fmt: skip
def test_duration_has_the_syntax_of_go(text: str, nanoseconds: int) -> None:
    """Numbers with units are added up."""
    assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "x", "1", "1d", "s", "1s1", ".s", "--1s", "1 s", "9999999h", "1" * 5000 + "s"])
def test_duration_of_other_text_is_refused(text: str) -> None:
    """Anything else is no duration."""
    with pytest.raises(ValueError, match=r"^time: "):
        parse_duration(text)
