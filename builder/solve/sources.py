"""Where the files of a build come from: the build context, named contexts, and the network.

Source: spec, sections 1.14, 1.17 and 1.18.
"""

from __future__ import annotations

import os
from pathlib import Path

from builder.context.local import LocalContext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from builder.context.named import NamedContexts
    from builder.context.remote import Downloader, Network, RemoteContext
    from builder.request import BuildRequest
    from builder.store import Store


class Sources:
    """The sources of one build; close it when done.

    Args:
        request: names the contexts.
        store: takes what is fetched.
        downloader: makes what fetches addresses, when first needed.
        telling: tells of a piece of work for the time of a block.
    """

    def __init__(
        self,
        request: BuildRequest,
        store: Store,
        downloader: Callable[[], Downloader],
        telling: Callable[[str], AbstractContextManager[object]],
    ) -> None:
        self._request = request
        self._store = store
        self._downloader = downloader
        self._telling = telling
        self._network: Network | None = None
        self.named: NamedContexts | None = None
        if request.build_contexts:
            from builder.context.named import NamedContexts  # noqa: PLC0415  most builds have none

            self.named = NamedContexts(request.build_contexts, store.blobs, self.network)

    def network(self) -> Network:
        """Give what fetches."""
        if self._network is None:
            from builder.context.authorization import Authorizations  # noqa: PLC0415  as below
            from builder.context.git import Git  # noqa: PLC0415  most builds fetch nothing
            from builder.context.remote import Network  # noqa: PLC0415  as above
            from builder.solve.secrets import Secrets  # noqa: PLC0415  as above

            folder = self._store.temporary / f"fetched-{os.urandom(4).hex()}"
            folder.mkdir(mode=0o700)
            known = Authorizations(Secrets(self._request.secrets).find)
            ssh = next((source for source in reversed(self._request.ssh) if source.id == "default"), None)
            git = Git(folder, self._request.git_environ, telling=self._telling, authorize=known.for_repository, ssh=ssh)
            self._network = Network(folder, self._store.blobs, self._store.state, self._downloader, git, known)
        return self._network

    def open_context(self) -> LocalContext | RemoteContext:
        """Open the build context.

        Raises:
            ContextError: there is none, or it has no Dockerfile.
            SourceError: it cannot be fetched.
        """
        request = self._request
        text = request.dockerfile_text
        if request.dockerfile_url is None and isinstance(request.context, Path):
            return LocalContext(request.context, dockerfile=request.dockerfile, text=text)
        from builder.context.remote import fetch_dockerfile, open_remote_context  # noqa: PLC0415  as in `network`
        from builder.source import SourceFile  # noqa: PLC0415  as in `network`

        source = SourceFile("Dockerfile", text) if text is not None else None
        if request.dockerfile_url is not None:
            source = fetch_dockerfile(request.dockerfile_url, self.network())
        if isinstance(request.context, Path):
            return LocalContext(request.context, dockerfile=None, text=source.text if source else None)
        dockerfile = str(request.dockerfile) if request.dockerfile is not None else None
        with self._telling("[internal] load build context"):
            return open_remote_context(
                request.context, self.network(), stdin=request.stdin, dockerfile=dockerfile, text=source
            )

    def close(self) -> None:
        """Close what was opened. Idempotent."""
        if self._network is not None:
            self._network.close()
        if self.named is not None:
            self.named.close()
