"""What a stage carries along: the environment of its steps and the config of its image."""

from __future__ import annotations

from builder.plan.graph import HistoryDraft, Vertex
from registry.oci.image_config import History, ImageConfig
from registry.value import field, mutable, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from registry.content.image import Image
    from registry.oci.platform import Platform

SCRATCH = "scratch"
"""What stands after FROM where there is no image."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL = ("/bin/sh", "-c")


@mutable
class StageState:
    """A stage while it is converted, instruction by instruction.

    *environ* is what steps see: ENV and valued ARGs, the later of two of one name wins. *build_args* are the ARGs
    declared so far in order, for the history of RUN. *has_cmd* says that this stage set CMD itself,
    *has_workdir* that this file has a WORKDIR before. *prefix* stands
    before the names of steps: the platform, where there are several.
    """

    config: ImageConfig
    platform: Platform
    vertex: Vertex | None = None
    base: Image | None = None
    base_history: tuple[History, ...] = ()
    history: list[HistoryDraft] = field(default_factory=list)
    environ: dict[str, str] = field(default_factory=dict)
    build_args: list[tuple[str, str]] = field(default_factory=list)
    has_cmd: bool = False
    has_workdir: bool = False
    stage_name: str = ""
    prefix: str = ""
    step: int = 1
    steps: int = 1

    @property
    def working_directory(self) -> str:
        """The directory relative paths start from."""
        return self.config.working_directory or "/"

    @property
    def shell(self) -> tuple[str, ...]:
        """The words shell-form commands are put behind."""
        return self.config.shell or DEFAULT_SHELL

    def inherit(self, *, stage_name: str) -> StageState:
        """Start another stage from this one: everything but the fact that CMD was set here."""
        return StageState(
            config=replace(self.config, on_build=()),
            platform=self.platform,
            vertex=self.vertex,
            base=self.base,
            base_history=self.base_history,
            history=list(self.history),
            environ=dict(self.environ),
            build_args=list(self.build_args),
            has_workdir=self.has_workdir,
            stage_name=stage_name,
        )

    def note(self, created_by: str) -> None:
        """Add a history entry without a layer."""
        self.history.append(HistoryDraft(created_by=created_by))

    def advance(self, vertex: Vertex, created_by: str) -> None:
        """Put a step's layer on top."""
        self.vertex = vertex
        self.history.append(HistoryDraft(created_by=created_by, vertex=vertex))

    def set_environ(self, name: str, value: str) -> None:
        """Do what ENV does: change the image and what steps see."""
        self.environ[name] = value
        self.config = replace(self.config, env=set_variable(self.config.env, name, value))

    def is_build_arg(self, name: str) -> bool:
        """Tell whether the value that steps see under a name is that of an ARG, not of an ENV."""
        return name in self.environ and f"{name}={self.environ[name]}" not in self.config.env

    def name_step(self, text: str) -> str:
        """Name a step as the progress shows it: `[build 2/5] RUN make`."""
        self.step += 1
        return self.label(text)

    def label(self, text: str) -> str:
        """Put the stage and the number of the step before a text."""
        stage = " ".join(part for part in (self.prefix, self.stage_name) if part)
        return f"[{stage}{' ' if stage else ''}{self.step}/{self.steps}] {text}"


def start_from_scratch(platform: Platform, *, stage_name: str) -> StageState:
    """Start a stage from the empty file system."""
    config = ImageConfig(platform=platform, working_directory="/", env=(f"PATH={DEFAULT_PATH}",))
    return StageState(config=config, platform=platform, environ={"PATH": DEFAULT_PATH}, stage_name=stage_name)


def start_from_image(image: Image, vertex: Vertex, *, stage_name: str) -> StageState:
    """Start a stage from an image; its ONBUILD triggers are the caller's to carry out."""
    config = image.config
    environ = parse_environ(config.env)
    if "PATH" not in environ:
        environ["PATH"] = DEFAULT_PATH
        config = replace(config, env=(*config.env, f"PATH={DEFAULT_PATH}"))
    config = replace(config, created=None, on_build=(), diff_ids=(), history=())
    return StageState(
        config=config,
        platform=config.platform,
        vertex=vertex if image.config.diff_ids else None,
        base=image,
        base_history=image.config.history,
        environ=environ,
        stage_name=stage_name,
    )


def parse_environ(variables: tuple[str, ...]) -> dict[str, str]:
    """Read the `NAME=value` list of an image config."""
    pairs = (variable.partition("=") for variable in variables)
    return {name: value for name, _, value in pairs}


def set_variable(variables: tuple[str, ...], name: str, value: str) -> tuple[str, ...]:
    """Replace a variable in its place, or append it."""
    pair = f"{name}={value}"
    changed = tuple(pair if variable.partition("=")[0] == name else variable for variable in variables)
    return changed if pair in changed else (*changed, pair)


def destination_path(text: str, working_directory: str) -> str:
    """Make the destination of COPY or ADD absolute; it ends in a slash if its spelling names a directory.

    `..` stays: what it means depends on the symbolic links before it.

    Args:
        text: as it is written, expanded.
        working_directory: of the stage, absolute.

    Source: spec, section 1.12, Destination 1 and 2.
    """
    path = text if text.startswith("/") else f"{working_directory}/{text}"
    is_directory = text in {"", ".", ".."} or text.endswith(("/", "/.", "/.."))
    return path.rstrip("/") + "/" if is_directory else path
