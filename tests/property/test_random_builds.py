"""Laws of whole builds, on random Dockerfiles that need no namespace."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.pipeline import Build
from builder.request import BuildRequest, Output, OutputType
from builder.store import Store
from registry.content.compression import Compression
from registry.errors import UnreachableError
from registry.oci.platform import Platform
from registry.oci.reference import parse_reference
from tests.conformance.flatten import Flat, read_archive

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from registry.content.image import Image

LINUX = Platform("linux", "amd64")
TAG = parse_reference("app:1")
FILES = {"a": "one", "b": "two", "d/a": "three", "d/e/f": "four"}

NAMES = st.sampled_from(["a", "b", "c", "a-b", "x.y"])
FOLDERS = st.lists(NAMES, min_size=1, max_size=3).map(lambda names: "/" + "/".join(f"{name}.d" for name in names))
COPIES = st.one_of(
    st.builds("COPY {} {}/{}".format, st.sampled_from(["a", "b", "d/a"]), FOLDERS, NAMES),
    st.builds("COPY {} {}/".format, st.sampled_from(["a", "a b", "d", "d/e", "."]), FOLDERS),
    st.builds("COPY --chmod={} --chown={} d {}/".format, st.sampled_from(["600", "755"]), st.just("3:4"), FOLDERS),
    st.builds("COPY <<EOF {}/{}\ntext $V\nEOF".format, FOLDERS, NAMES),
)
STEPS = st.one_of(
    COPIES,
    st.builds("WORKDIR {}".format, st.one_of(FOLDERS, NAMES.map("{}.d".format))),
    st.builds("ENV {}={}".format, st.sampled_from(["V", "W"]), st.sampled_from(["1", "x$V", "${W:-none}"])),
    st.builds("LABEL {}=$V".format, st.sampled_from(["l", "m"])),
    st.just("USER 5:6"),
)
LINKABLE = st.one_of(
    st.builds("COPY {} {}/{}".format, st.sampled_from(["a", "b", "d/a"]), FOLDERS, NAMES),
    st.builds("COPY {} {}/".format, st.sampled_from(["a", "a b", "d", "d/e", "."]), FOLDERS),
    st.builds("COPY <<EOF {}/{}\ntext\nEOF".format, FOLDERS, NAMES),
    st.builds("ADD {} {}/".format, st.sampled_from(["a", "d"]), FOLDERS),
)
BUILDS = st.lists(STEPS, min_size=1, max_size=6)
EPOCH = {"SOURCE_DATE_EPOCH": "1700000000"}
"""Makes the times of directories that a build makes the same in two builds that are compared."""

FEW = settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])


class Workshop:
    """A context with `FILES` and a store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context = folder / "context"
        for name, text in FILES.items():
            (self.context / name).parent.mkdir(parents=True, exist_ok=True)
            (self.context / name).write_text(text)
            (self.context / name).chmod(0o644)
        self._times = (f"2026-01-01T00:{number // 60:02}:{number % 60:02}Z" for number in itertools.count())

    @contextmanager
    def store(self, name: str = "store") -> Iterator[Store]:
        """Open a store."""
        with Store(self.folder / name) as store:
            yield store

    def build(
        self, store: Store, dockerfile: str, build_args: Mapping[str, str] = MappingProxyType(EPOCH), **wishes: Any
    ) -> Image:
        """Build a Dockerfile."""
        request = BuildRequest(
            context=self.context,
            root=store.root,
            platform=LINUX,
            build_platform=LINUX,
            dockerfile_text=dockerfile,
            build_args=build_args,
            compression=Compression(),
            **wishes,
        )
        build = Build(request, store, lambda _: None, connect=_refuse, now=lambda: next(self._times))
        try:
            assert build.prepare() is False
            image = build.finish(None).image
        finally:
            build.close()
        return image

    def export(self, store: Store, dockerfile: str, name: str = "image.tar") -> Flat:
        """Build into an archive and read it."""
        archive = self.folder / name
        self.build(store, dockerfile, outputs=(Output(type=OutputType.OCI, destination=archive),))
        return read_archive(archive)


@contextmanager
def workshop() -> Iterator[Workshop]:
    """Give a workshop of one example, which pytest's own folders are not made for."""
    folder = Path(tempfile.mkdtemp(prefix="pybuild-property-"))
    try:
        yield Workshop(folder)
    finally:
        shutil.rmtree(folder)


@FEW
@given(BUILDS)
def test_build_done_again_has_the_same_digest(steps: list[str]) -> None:
    """A build whose every step is cached gives the image it gave before, though time went on."""
    dockerfile = "\n".join(["FROM scratch", *steps, ""])
    with workshop() as made, made.store() as store:
        first = made.build(store, dockerfile, build_args={})
        second = made.build(store, dockerfile, build_args={})

    assert second.descriptor == first.descriptor


@FEW
@given(BUILDS, st.data())
def test_cached_build_gives_what_a_fresh_one_gives(steps: list[str], data: st.DataObject) -> None:
    """Steps that come from the cache of a shorter build give the tree and config of a build without a cache."""
    count = data.draw(st.integers(1, len(steps)), label="steps in the cache")
    dockerfile = "\n".join(["FROM scratch", *steps, ""])
    with workshop() as made, made.store() as store, made.store("other") as other:
        made.build(store, "\n".join(["FROM scratch", *steps[:count], ""]))
        cached = made.export(store, dockerfile)
        fresh = made.export(other, dockerfile)

    assert cached.tree == fresh.tree
    assert cached.config["config"] == fresh.config["config"]


@FEW
@given(BUILDS, st.data())
def test_stage_cut_in_two_gives_the_same_tree(steps: list[str], data: st.DataObject) -> None:
    """Where a stage is cut into one and another that derives from it changes nothing of the result."""
    cut = data.draw(st.integers(0, len(steps)), label="where it is cut")
    halves = ["FROM scratch AS first", *steps[:cut], "FROM first", *steps[cut:], ""]
    with workshop() as made, made.store() as store:
        whole = made.export(store, "\n".join(["FROM scratch", *steps, ""]))
        cut_in_two = made.export(store, "\n".join(halves))

    assert cut_in_two.tree == whole.tree
    assert cut_in_two.config["config"] == whole.config["config"]
    assert cut_in_two.layers == whole.layers


@FEW
@given(st.lists(LINKABLE, min_size=1, max_size=6))
def test_linked_copies_give_the_tree_of_others(steps: list[str]) -> None:
    """Where no symbolic link and no directory of another mode is in the way, `--link` changes only what is cached.

    Times of directories are left out: a linked layer brings its own.
    """
    linked = [step.replace(" ", " --link ", 1) for step in steps]
    with workshop() as made, made.store() as store:
        plain = made.export(store, "\n".join(["FROM scratch", *steps, ""]))
        other = made.export(store, "\n".join(["FROM scratch", *linked, ""]), "linked.tar")

    assert _without_directory_times(other) == _without_directory_times(plain)
    assert other.layers == plain.layers


@FEW
@given(BUILDS)
def test_exported_and_loaded_image_keeps_its_digest(steps: list[str]) -> None:
    """Export, load, export: the manifest in both archives is the same."""
    from builder.cli.environment import Environment  # noqa: PLC0415  only here
    from builder.cli.main import main  # noqa: PLC0415  as above

    dockerfile = "\n".join(["FROM scratch", *steps, ""])
    with workshop() as made:
        first, second = made.folder / "first.tar", made.folder / "second.tar"
        with made.store() as store:
            made.build(store, dockerfile, tags=(TAG,), outputs=(Output(type=OutputType.OCI, destination=first),))
        environment = Environment.from_process()
        root = ["--root", str(made.folder / "loaded")]
        assert main(["load", *root, "-q", "-i", str(first)], environment) == 0
        assert main(["save", *root, "--format", "oci-archive", "-o", str(second), "app:1"], environment) == 0

        assert _digests(second) == _digests(first)


def _without_directory_times(image: Flat) -> dict[str, dict[str, Any]]:
    return {
        path: {key: value for key, value in entry.items() if (key, entry["type"]) != ("mtime", "directory")}
        for path, entry in image.tree.items()
    }


def _digests(archive: Path) -> list[str]:
    import tarfile  # noqa: PLC0415  only here

    with tarfile.open(archive) as opened:
        index = opened.extractfile("index.json")
        assert index is not None
        return [entry["digest"] for entry in json.loads(index.read())["manifests"]]


def _refuse(_progress: object) -> Any:
    raise UnreachableError("nowhere", "there is no network in this test")
