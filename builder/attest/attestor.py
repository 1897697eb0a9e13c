"""What a build says of its results: the attestations of each platform, put where an output wants them.

In an image they lie in an index beside it (`builder.attest.manifest`). Beside the files of a result they are files, and
what they are about is each of those. A build that is asked for none of this loads nothing of it.

Source: BuildKit, docs/attestations; exporter/local/fs.go for files.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections import Counter
from typing import TYPE_CHECKING

from builder.attest.manifest import write_attestations
from builder.attest.materials import gather
from builder.attest.provenance import Account, Invocation, summarize, write_provenance
from builder.attest.purl import image_purl
from builder.attest.statement import Attestation, Subject, encode_statement
from builder.attest.steps import describe_steps
from builder.errors import AttestationError
from builder.plan.graph import list_vertices
from builder.request import ProvenanceRequest
from registry.oci.descriptor import Descriptor
from registry.oci.digest import parse_digest
from registry.value import replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from builder.context.remote import Network
    from builder.image.index import Attachment
    from builder.plan.graph import Plan
    from builder.plan.platforms import Plans
    from builder.request import BuildRequest
    from builder.solve.solver import Solver
    from builder.source import SourceFile
    from builder.store import Store
    from registry.content.image import Image
    from registry.oci.digest import Digest
    from registry.oci.reference import Reference


class Attestor:
    """Attests the results of one build that is solved.

    Args:
        request: what is asked for.
        plans: of the build.
        solver: has carried them out.
        store: has the layers, and takes documents.
        dockerfile: as it was read.
        network: has fetched what came from the network.
        started: when the build began, as RFC 3339 text.
        now: gives the time in that form.
    """

    def __init__(
        self,
        request: BuildRequest,
        plans: Plans,
        solver: Solver,
        store: Store,
        *,
        dockerfile: SourceFile,
        network: Callable[[], Network],
        started: str,
        now: Callable[[], str],
    ) -> None:
        self._request = request
        self._plans = plans
        self._solver = solver
        self._store = store
        self._dockerfile = dockerfile
        self._network = network
        self._now = now
        self._started = started
        self._id = secrets.token_hex(16)

    def attach(self, plan: Plan, image: Image, names: Sequence[Reference], *, artifact: bool) -> Attachment:
        """Write the attestations of an image.

        Args:
            plan: it was made by.
            image: with the digest they are about.
            names: it gets; with none, the subject is called `_`.
            artifact: the form of their manifest.

        Raises:
            AttestationError: the list of software cannot be used.
        """
        purls = [image_purl(name, plan.platform) for name in names] or ["_"]
        subjects = [Subject.of(purl, image.descriptor.digest) for purl in purls]
        attestations = [*self._lists_in(plan, image), *self._provenances(plan, image)]
        statements = [(each.predicate_type, encode_statement(each, subjects)) for each in attestations]
        return write_attestations(statements, image, self._store.blobs, artifact=artifact)

    def files(self, plan: Plan, view: Path) -> Iterator[tuple[str, bytes]]:
        """Give name and content of the files that attest the files of a result, of which *view* shows the tree.

        Raises:
            AttestationError: the list of software cannot be used, or two of the files have one name.
        """
        wanted = self._request.provenance
        attestations = [*self._lists(plan)]
        if wanted is not None and not wanted.inline_only:
            attestations += self._provenances(plan, None)
        for name, count in Counter(each.file for each in attestations).items():
            if count > 1:
                raise AttestationError(
                    f"duplicate attestation path name {name}", hint="name it with --provenance=filename=NAME"
                )
        subjects = list(_file_subjects(view)) if attestations else []
        for each in attestations:
            yield each.file, encode_statement(each, subjects, indent=2)

    def record(self) -> dict[str, object]:
        """Return the provenance of each platform for a metadata file, under the keys of buildx; empty if not asked for."""
        mode = self._request.recorded
        if mode is None:
            return {}
        wanted = replace(self._request.provenance or ProvenanceRequest(), mode=mode)
        several = len(self._plans.plans) > 1
        found: dict[str, object] = {}
        for plan in self._plans.plans:
            predicate = self._provenance(wanted, plan, None).predicate
            key = f"buildx.build.provenance/{plan.platform}" if several else "buildx.build.provenance"
            found[key] = predicate if mode == "max" else summarize(predicate)
        return found

    # Lists of software

    def _lists(self, plan: Plan) -> tuple[Attestation, ...]:
        if plan.scan is None or self._request.sbom is None:
            return ()
        from builder.attest.sbom import read_documents  # noqa: PLC0415  only with a list of software

        layer = self._solver.result(plan.scan)[-1]
        with self._solver.file_systems.open_tar(layer.diff_id) as tar:
            return read_documents(tar, str(self._request.sbom.generator))

    def _lists_in(self, plan: Plan, image: Image) -> Iterable[Attestation]:
        documents = self._lists(plan)
        if not documents:
            return
        from builder.attest.sbom import add_layers  # noqa: PLC0415  as above

        layers = self._solver.result(plan.vertex)
        self._solver.file_systems.tree(layers)  # which sees to it that all are indexed
        digests = [layer.digest for layer in image.manifest.layers]
        trees = [self._store.index.tree([layer.diff_id], lambda _: None) for layer in layers]

        def find_layer(path: bytes) -> Digest | None:
            """Find the topmost layer that has a file; whether one above took it away does not matter."""
            found = (at for at in reversed(range(len(trees))) if trees[at].find(path) is not None)
            at = next(found, None)
            return None if at is None else digests[at]

        yield from (add_layers(document, find_layer) for document in documents)

    # Provenance

    def _provenances(self, plan: Plan, image: Image | None) -> list[Attestation]:
        wanted = self._request.provenance
        return [] if wanted is None else [self._provenance(wanted, plan, image)]

    def _provenance(self, wanted: ProvenanceRequest, plan: Plan, image: Image | None) -> Attestation:
        vertices = plan.vertices()
        scanned = list_vertices([plan.scan])
        invocation = Invocation()
        if plan.epoch is None:
            invocation = Invocation(id=self._id, started=self._started, finished=self._now())
        account = None
        if wanted.mode == "max":
            steps = describe_steps(vertices, plan.vertex)
            account = Account(vertices=vertices, steps=steps, layers=self._layers(plan, image))
        inputs = gather(vertices, scanned, self._request, self._network)
        return write_provenance(wanted, self._request, inputs, self._dockerfile, invocation, account)

    def _layers(self, plan: Plan, image: Image | None) -> dict[str, tuple[Descriptor, ...]]:
        """Find the layers after each step: of the image, and of other stages what is stored of them.

        With an epoch, of the image alone: layers of other stages hold the times at which they were made.
        """
        chain = set()
        vertex = plan.vertex
        while vertex is not None:
            chain.add(vertex.digest)
            vertex = vertex.parent
        found: dict[str, tuple[Descriptor, ...]] = {}
        for each in plan.vertices():
            layers = self._solver.result(each)
            if image is not None and each.digest in chain:
                found[each.digest] = image.manifest.layers[: len(layers)]
            if plan.epoch is not None or each.digest in found:
                continue
            stored = [self._solver.file_systems.find_blob(layer.diff_id) for layer in layers]
            if all(stored):
                found[each.digest] = tuple(
                    Descriptor(media_type=one.media_type, digest=one.digest, size=one.size) for one in stored if one
                )
        return found


def _file_subjects(view: Path) -> Iterator[Subject]:
    """Give the files of a tree with the digests of their contents, in the order of their paths."""
    for folder, folders, names, fd in os.fwalk(os.fsencode(view)):
        folders.sort()
        inside = os.path.relpath(folder, os.fsencode(view))
        for name in sorted(names):
            if not stat.S_ISREG(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                continue
            path = name if inside == b"." else os.path.join(inside, name)
            digest = _digest_file(name, fd)
            yield Subject.of(path.decode("utf-8", "surrogateescape"), digest)


def _digest_file(name: bytes, folder: int) -> Digest:
    with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder), "rb", buffering=0) as file:
        return parse_digest(f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}")
