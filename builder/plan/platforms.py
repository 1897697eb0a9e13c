"""One plan for each platform of a build. Vertices of one definition are one, so plans share what they agree on.

Source: spec, section 1.19; BuildKit, `frontend/dockerfile/builder/build.go`.
"""

from __future__ import annotations

from builder.plan.check_values import NO_CHECKS, PlanChecks
from builder.plan.convert import convert
from builder.plan.graph import Plan, Vertex, list_vertices
from registry.value import frozen, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from builder.context.named import NamedContexts
    from builder.context.remote import RemoteSource
    from builder.dockerfile.stages import Dockerfile
    from builder.plan.convert import ResolveImage
    from builder.request import BuildRequest
    from builder.source import Span


@frozen(kw_only=False)
class Plans:
    """The plans of a build, in the order its platforms were asked for."""

    plans: tuple[Plan, ...]

    def tops(self) -> tuple[Vertex | None, ...]:
        """List the vertices that the build is for: the results, and what lists their software."""
        return tuple(vertex for plan in self.plans for vertex in (plan.vertex, plan.scan))

    def vertices(self) -> tuple[Vertex, ...]:
        """List every vertex of all plans once, inputs before those that need them."""
        return list_vertices(self.tops())


def convert_all(
    source: Dockerfile,
    request: BuildRequest,
    resolve_image: ResolveImage,
    *,
    context_time: int | None = None,
    remote_time: Callable[[RemoteSource, Span], int | None] = lambda *_: None,
    checks: PlanChecks = NO_CHECKS,
    contexts: NamedContexts | None = None,
) -> Plans:
    """Plan the target stage for every platform; arguments and raises are those of `convert`."""
    requests = [request]
    if len(request.platforms) > 1:
        requests = [replace(request, platform=platform) for platform in request.platforms]
    return Plans(
        tuple(
            convert(
                source,
                each,
                resolve_image,
                context_time=context_time,
                remote_time=remote_time,
                checks=checks,
                contexts=contexts,
            )
            for each in requests
        )
    )


def is_multi_platform(request: BuildRequest) -> bool:
    """Tell whether the result is an index: several platforms, or the build argument BUILDKIT_MULTI_PLATFORM."""
    wanted = request.build_args.get("BUILDKIT_MULTI_PLATFORM", "").lower()
    return len(request.platforms) > 1 or wanted in {"1", "t", "true"}
