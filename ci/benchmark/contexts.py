"""Contexts that are the same on every machine: made from a seed, kept in a folder named after their parameters.

Each function takes the folder below which contexts are kept and returns the context's own folder. A context is written
under another name first, so that one cut short is never taken for whole.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from benchmark.units import MIB

SEED = 20_231_114

Writer = Callable[[Path, random.Random], None]


def write_many_files(contexts: Path, *, files: int, size: int, base: str, name: str = "many-files") -> Path:
    """Write a context of *files* small files like a JavaScript project's packages, *size* bytes together.

    Packages of about fifty files lie in nested folders. Lengths are spread as in such trees: most files have one or
    two kilobytes, a few have hundreds. Contexts of different *names* are of different files, even if all are the same.
    """

    def write(folder: Path, source: random.Random) -> None:
        weights = [source.lognormvariate(0.0, 1.3) for _ in range(files)]
        scale = size / sum(weights)
        words = _words(source)
        package = folder
        for number, weight in enumerate(weights):
            if number % 50 == 0:
                depth = source.randrange(1, 5)
                package = folder / "files" / "/".join(source.choice(words) for _ in range(depth)) / f"package-{number}"
                package.mkdir(parents=True)
            path = package / f"{source.choice(words)}-{number}.js"
            path.write_text(_script(source, words, max(1, round(weight * scale))))

    dockerfile = f"FROM {base}\nCOPY files /srv/files\n"
    return _keep(contexts / f"{name}-{files}-{size // MIB}", dockerfile, write)


def change_one_file(context: Path) -> None:
    """Give one file of a context of many files a first line that it never had."""
    path = next((context / "files").rglob("*-0.js"))
    _, _, rest = path.read_text().partition("\n")
    path.write_text(f"// {time.time_ns()}\n{rest}")


def write_big_file(contexts: Path, *, size: int, base: str) -> Path:
    """Write a context of one file of *size* bytes, every second half kilobyte of it random and the rest text."""

    def write(folder: Path, source: random.Random) -> None:
        text = (b"all work and no play makes a dull layer\n" * 13)[:512]
        with open(folder / "big", "wb") as file:
            file.writelines(
                b"".join(source.randbytes(512) + text for _ in range(MIB // 1024)) for _ in range(size // MIB)
            )

    return _keep(contexts / f"big-file-{size // MIB}", f"FROM {base}\nCOPY big /srv/big\n", write)


def write_long_dockerfile(contexts: Path, *, size: int, base: str) -> Path:
    """Write a context whose Dockerfile has *size* bytes, nearly all of them in a stage that nothing needs."""
    line = 'RUN set -e; for name in one two three; do echo "$name" >> /srv/log; done && sync\n'
    dockerfile = f"FROM {base} AS unused\n{line * (size // len(line))}FROM {base}\nLABEL made=yes\n"
    return _keep(contexts / f"long-dockerfile-{size}", dockerfile, lambda _folder, _source: None)


def write_one_step(contexts: Path, *, base: str, name: str = "one-step") -> Path:
    """Write a context whose only step does nothing; each *base* that is used has a *name* of its own."""
    return _keep(contexts / name, f"FROM {base}\nRUN true\n", _write_nothing)


def write_steps(contexts: Path, *, steps: int, base: str) -> Path:
    """Write a context of *steps* RUN lines that each write one small file."""
    lines = "".join(f"RUN echo {number} > /srv/{number}\n" for number in range(steps))
    return _keep(contexts / f"steps-{steps}", f"FROM {base}\n{lines}", _write_nothing)


def write_stages(contexts: Path, *, stages: int, command: str, base: str, name: str = "stages") -> Path:
    """Write a context of *stages* stages that do not need each other, each of which runs *command* once.

    Each *command* that is used has a *name* of its own.
    """
    parts = [
        f"FROM {base} AS stage-{number}\nRUN {command} && echo {number} > /srv/{number}\n" for number in range(stages)
    ]
    copies = "".join(f"COPY --from=stage-{number} /srv/{number} /srv/{number}\n" for number in range(stages))
    return _keep(contexts / f"{name}-{stages}", f"{''.join(parts)}FROM {base}\n{copies}", _write_nothing)


def write_debian_step(contexts: Path, *, command: str, base: str) -> Path:
    """Write a context whose only step runs a command of Debian's that must not ask questions."""
    dockerfile = f"FROM {base}\nENV DEBIAN_FRONTEND=noninteractive\nRUN {command}\n"
    return _keep(contexts / "debian-step", dockerfile, _write_nothing)


def _keep(folder: Path, dockerfile: str, write: Writer) -> Path:
    if not folder.exists():
        partial = folder.with_name(f"{folder.name}.partial")
        partial.mkdir(parents=True, exist_ok=True)
        write(partial, random.Random(SEED))
        partial.rename(folder)
    (folder / "Dockerfile").write_text(dockerfile)
    return folder


def _write_nothing(_folder: Path, _source: random.Random) -> None:
    """The Dockerfile is all there is."""


def _words(source: random.Random) -> list[str]:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return ["".join(source.choices(letters, k=source.randrange(3, 11))) for _ in range(400)]


def _script(source: random.Random, words: list[str], size: int) -> str:
    """Return *size* characters that compress about as well as JavaScript does."""
    lines: list[str] = []
    length = 0
    while length < size:
        name, other, third = source.choices(words, k=3)
        line = f"export const {name} = ({other}, options) => require('./{third}').{other}(options.{name} || {source.randrange(9999)});\n"
        lines.append(line)
        length += len(line)
    return "".join(lines)[:size]
