"""COPY --link: a layer that knows nothing of those below it, and so outlives their changes.

Source: spec, section 1.13; BuildKit, `dockerfile2llb/convert.go`, dispatchCopy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.errors import DockerfileError
from builder.plan.owner import needs_no_file

if TYPE_CHECKING:
    from builder.dockerfile import instructions as dockerfile


def is_linked(instruction: dockerfile.Copy | dockerfile.Add, chown: str | None) -> bool:
    """Tell whether the files go into an empty root, where `--link` asks for it; `--chmod` switches that off, as in BuildKit.

    Args:
        instruction: with `--link`, and its other flags.
        chown: the value of `--chown`, expanded.

    Raises:
        DockerfileError: `--chown` holds a name, which nothing in an empty root can tell the number of.
    """
    if instruction.chmod is not None:
        return False
    names = [part for part in (chown or "").split(":") if part and not needs_no_file(part)]
    if names:
        raise DockerfileError(
            f"invalid missing user mount, --chown with --link takes numbers only: `{names[0]}`",
            hint="write the number of the user, or drop --link",
            span=instruction.span,
        )
    return True
