"""From a Dockerfile and a request to a plan.

Stages are converted only when the target needs them, in the order of the file; each instruction changes the state of
its stage (`StageState`) and may add a vertex to the plan.

Source: Dockerfile reference; BuildKit, `frontend/dockerfile/dockerfile2llb/convert.go` (dispatch functions), whose
corners are listed in the spec, sections 1.5 to 1.15 and 2.1.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping

from builder.dockerfile import instructions as dockerfile
from builder.dockerfile.parser import shorten
from builder.errors import DockerfileError
from builder.plan import history_text
from builder.plan.build_args import (
    SCAN_ARGS,
    SCAN_CONTEXT_ARG,
    SCAN_STAGE_ARG,
    automatic_args,
    global_args,
    proxy_environ,
)
from builder.plan.check_values import (
    NO_CHECKS,
    PlanChecks,
    check_base_platform,
    check_from_lines,
    check_sources,
    check_unset,
)
from builder.plan.epoch import EPOCH_ARG, EpochNames, resolve_epoch
from builder.plan.graph import BaseImage, CopyFiles, EmptyFileSystem, MakeDirectory, Plan, RunCommand, Vertex
from builder.plan.image_state import SCRATCH, StageState, destination_path, start_from_image, start_from_scratch
from builder.plan.scope import Scope
from builder.source import Span
from registry.content.image import Image
from registry.errors import RegistryError
from registry.oci.platform import Platform, parse_platform
from registry.oci.reference import Reference, parse_reference
from registry.value import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.context.named import NamedContext, NamedContexts
    from builder.context.remote import RemoteSource
    from builder.dockerfile.mounts import Device
    from builder.dockerfile.stages import Dockerfile, Stage
    from builder.plan.mounts import PlannedMount
    from builder.plan.scan_scope import ScanScope
    from builder.request import BuildRequest

DEFAULT_HOSTNAME = "buildkitsandbox"
HISTORY_SUFFIX = " # buildkit"

ResolveImage = Callable[[Reference, Platform, Span | None], Image]
"""Finds the image of a reference for a platform: manifest and config; raises RegistryError."""

_MAX_INDEX_DIGITS = 9
_URL = r"(?i:https?://|git://|ssh://|git@)"
_WITH_LAYER = (dockerfile.Run, dockerfile.Copy, dockerfile.Add, dockerfile.Workdir)


def convert(
    source: Dockerfile,
    request: BuildRequest,
    resolve_image: ResolveImage,
    *,
    context_time: int | None = None,
    remote_time: Callable[[RemoteSource, Span], int | None] = lambda *_: None,
    checks: PlanChecks = NO_CHECKS,
    contexts: NamedContexts | None = None,
) -> Plan:
    """Plan the target stage of a Dockerfile.

    Args:
        source: the stages.
        request: target, arguments, platform, network and caching wishes.
        resolve_image: finds base images; asked only for stages that are needed.
        context_time: what `SOURCE_DATE_EPOCH=context` means, in seconds; None if the context has no time.
        remote_time: finds the time of what is on the network, in seconds, for a stage that `SOURCE_DATE_EPOCH` names.
        checks: is told of build checks that fail.
        contexts: what stands for names of stages and images.

    Raises:
        DockerfileError: an instruction cannot be carried out as written.
        RegistryError: a base image cannot be found.
    """
    target = source.get_target(request.target)
    epochs = EpochNames(source, contexts, context_time, remote_time)
    converter = _Converter(source, request, resolve_image, target, epochs, checks, contexts)
    state = converter.stage_state(target)
    config = replace(state.config, labels={**state.config.labels, **request.labels})
    return Plan(
        vertex=state.vertex,
        config=config,
        base=state.base,
        base_history=state.base_history,
        history=tuple(state.history),
        platform=request.platform,
        epoch=converter.epoch,
        scope=converter.scan_scope(target) if request.sbom else None,
    )


class _Converter:
    def __init__(
        self,
        source: Dockerfile,
        request: BuildRequest,
        resolve_image: ResolveImage,
        target: Stage,
        epochs: EpochNames,
        checks: PlanChecks,
        contexts: NamedContexts | None,
    ) -> None:
        self._contexts = contexts
        self._source = source
        self._checks = checks
        self._request = request
        self._resolve_image = resolve_image
        self._escape = source.directives.escape
        self._states: dict[int, StageState] = {}
        self._triggers: dict[int, list[dockerfile.Instruction]] = {}
        self._images: dict[tuple[str, Platform], Image] = {}
        automatic = automatic_args(
            target=request.platform, build=request.build_platform, stage=request.target or target.name or "default"
        )
        self._global_args = global_args(source.meta_args, automatic, request.build_args, self._expand_global)
        self.epoch = self._resolve_epoch(epochs)
        check_from_lines(source, self._global_args, automatic, checks.warn)
        for stage in source.stages if checks.all_stages else self._reachable(target):
            self.stage_state(stage)

    def _resolve_epoch(self, epochs: EpochNames) -> int | None:
        """Find the time that counts, and let the arguments of steps say it instead of what it was named by."""
        given = self._request.build_args
        epoch = resolve_epoch(
            self._global_args.get(EPOCH_ARG, given.get(EPOCH_ARG)), epochs, self._request, self._global_args
        )
        said = {EPOCH_ARG: "" if epoch is None else str(epoch)}
        if EPOCH_ARG in given:
            self._request = replace(self._request, build_args={**given, **said})
        if EPOCH_ARG in self._global_args:
            self._global_args |= said
        return epoch

    # Stages

    def stage_state(self, stage: Stage) -> StageState:
        """Convert a stage, once."""
        if stage.index not in self._states:
            self._states[stage.index] = self._convert_stage(stage)
        return self._states[stage.index]

    def scan_scope(self, target: Stage) -> ScanScope:
        """Find what a list of software takes in beside the target."""
        from builder.plan.scan_scope import ScanScope, is_scanned  # noqa: PLC0415  only with such a list

        scanned: dict[str, list[tuple[str, Vertex | None]]] = {argument: [] for argument in SCAN_ARGS}
        for stage in self._reachable(target):
            state = self.stage_state(stage)
            for argument, found in scanned.items():
                if is_scanned(argument, state.stage_name, state.build_args, self._global_args):
                    found.append((state.stage_name, state.vertex))
        here = self.stage_state(target).stage_name
        return ScanScope(
            stages=tuple((name, vertex) for name, vertex in scanned[SCAN_STAGE_ARG] if name != here),
            context=any(name == here for name, _ in scanned[SCAN_CONTEXT_ARG]),
        )

    def _reachable(self, target: Stage) -> list[Stage]:
        """List the stages the target needs, in the order of the file."""
        found = {target.index}
        pending = [target]
        while pending:
            stage = pending.pop()
            if stage.name and self._find_context(stage.name, self._request.platform):
                continue  # it is replaced, and needs nothing
            names = [self._base_name(stage)]
            names += [i.from_ for i in stage.instructions if isinstance(i, dockerfile.Copy) and i.from_]
            runs = (i for i in stage.instructions if isinstance(i, dockerfile.Run))
            names += [mount.from_ for run in runs for mount in run.mounts if mount.from_]
            for name in names:
                needed = self._find_earlier(name, stage)
                if needed is not None and needed.index not in found:
                    found.add(needed.index)
                    pending.append(needed)
        return [self._source.stages[index] for index in sorted(found)]

    def _find_earlier(self, name: str, stage: Stage) -> Stage | None:
        """Find the last stage of that name before *stage*."""
        for earlier in reversed(self._source.stages[: stage.index]):
            if earlier.name is not None and earlier.name == name.lower():
                return earlier
        if name.isdecimal() and len(name) <= _MAX_INDEX_DIGITS and int(name) < stage.index:
            return self._source.stages[int(name)]
        return None

    def _base_name(self, stage: Stage) -> str:
        name = self._global_scope(stage.base.span).text(stage.base.image)
        if not name:
            raise DockerfileError(
                f"base name ({stage.base.image}) should not be blank",
                hint="give the ARG a default before the first FROM, or pass --build-arg",
                span=stage.base.span,
            )
        return name

    def _stage_label(self, stage: Stage) -> str:
        if stage.name:
            return stage.name
        return f"stage-{stage.index}" if len(self._source.stages) > 1 else ""

    def _find_context(self, name: str, platform: Platform) -> NamedContext | None:
        return self._contexts.find(name, platform) if self._contexts else None

    def _start_from_context(
        self, context: NamedContext, platform: Platform, label: str, name: str, span: Span
    ) -> StageState:
        """Begin a stage, or replace one, with a named context."""
        if context.kind == "directory":
            state = start_from_scratch(platform, stage_name=label)
            state.advance(self._context_vertex(context, span), f"FROM {name}{HISTORY_SUFFIX}")
            return state
        image = self._context_image(context, platform, span)
        vertex = self._image_vertex(image, context.value, f"[context {name}] FROM {context.value}", span)
        return start_from_image(image, vertex, stage_name=label)

    def _context_image(self, context: NamedContext, platform: Platform, span: Span) -> Image:
        if context.kind == "image" or self._contexts is None:
            return self._image(context.value, platform, span)
        try:
            return self._contexts.load_layout(context, platform)
        except RegistryError as error:
            raise DockerfileError(error.message, hint=error.hint, span=span) from error

    def _context_vertex(self, context: NamedContext, span: Span) -> Vertex:
        """Plan the file system that holds a whole named context."""
        name = f"[context {context.key}] load {context.key}"
        op = CopyFiles(instruction="COPY", paths=("/",), destination="/", context=context.key, epoch=self.epoch)
        return Vertex(op=op, name=name, text=name, stage="", span=span, no_cache=self._request.no_cache)

    def _convert_stage(self, stage: Stage) -> StageState:
        replaced = self._find_context(stage.name, self._platform(stage)) if stage.name else None
        if replaced is not None and stage.name:
            label = self._stage_label(stage)
            return self._start_from_context(replaced, self._platform(stage), label, stage.name, stage.base.span)
        state, triggers = self._start(stage)
        state.steps = 1 + _count_steps(triggers) + _count_steps(stage.instructions)
        state.prefix = self._prefix(state.platform)
        for instruction in (*triggers, *stage.instructions):
            self._dispatch(instruction, state, stage)
        return state

    def _start(self, stage: Stage) -> tuple[StageState, list[dockerfile.Instruction]]:
        """Begin a stage from its base; return its state and the ONBUILD triggers to carry out first."""
        name = self._base_name(stage)
        label = self._stage_label(stage)
        platform = self._platform(stage)
        if name == SCRATCH:
            return start_from_scratch(platform, stage_name=label), []
        earlier = None if name.isdecimal() else self._find_earlier(name, stage)
        if earlier is not None:
            state = self.stage_state(earlier).inherit(stage_name=label)
            return state, self._triggers.get(earlier.index, [])
        named = self._find_context(name, platform)
        if named is not None and named.kind == "directory":
            return self._start_from_context(named, platform, label, name, stage.base.span), []
        image = (
            self._context_image(named, platform, stage.base.span)
            if named
            else self._image(name, platform, stage.base.span)
        )
        check_base_platform(name, platform, image.config.platform, stage.base.span, self._checks.warn)
        triggers = [dockerfile.parse_on_build(text, name=f"ONBUILD of {name}") for text in image.config.on_build]
        steps = 1 + _count_steps(triggers) + _count_steps(stage.instructions)
        prefix = " ".join(part for part in (self._prefix(platform), label, f"1/{steps}") if part)
        vertex = self._image_vertex(image, name, f"[{prefix}] FROM {name}", stage.base.span)
        return start_from_image(image, vertex, stage_name=label), triggers

    def _prefix(self, platform: Platform) -> str:
        return str(platform) if len(self._request.platforms) > 1 else ""

    def _platform(self, stage: Stage) -> Platform:
        if stage.base.platform is None:
            return self._request.platform
        text = self._global_scope(stage.base.span).text(stage.base.platform)
        if not text:
            raise DockerfileError(
                f"empty platform value from expression {stage.base.platform}",
                hint="use $BUILDPLATFORM, $TARGETPLATFORM or os/architecture",
                span=stage.base.span,
            )
        try:
            return parse_platform(text)
        except RegistryError as error:
            raise DockerfileError(error.message, hint=error.hint, span=stage.base.span) from error

    def _image(self, name: str, platform: Platform, span: Span) -> Image:
        """Find an image, once for each platform."""
        try:
            reference = parse_reference(name)
        except RegistryError as error:
            raise DockerfileError(error.message, hint=error.hint, span=span) from error
        known = self._images.get((str(reference), platform))
        if known is None:
            known = self._images[str(reference), platform] = self._resolve_image(reference, platform, span)
        return known

    def _image_vertex(self, image: Image, reference: str, name: str, span: Span) -> Vertex:
        return Vertex(
            op=BaseImage(reference=reference, image=image), name=name, text=f"FROM {reference}", stage="", span=span
        )

    # Expansion

    def _expand_global(self, instruction: dockerfile.Arg, word: str, values: Mapping[str, str]) -> str:
        return Scope(values, self._escape, instruction.span).text(word)

    def _global_scope(self, span: Span) -> Scope:
        return Scope(self._global_args, self._escape, span)

    # Instructions

    def _dispatch(self, instruction: dockerfile.Instruction, state: StageState, stage: Stage) -> None:
        scope = Scope(dict(state.environ), self._escape, instruction.span)
        match instruction:
            case dockerfile.Arg():
                self._arg(instruction, state, scope)
            case dockerfile.User():
                user = scope.text(instruction.user)
                state.config = replace(state.config, user=user)
                state.note(f"USER {user}")
            case dockerfile.Workdir():
                self._workdir(instruction, state, scope)
            case dockerfile.Shell():
                state.config = replace(state.config, shell=instruction.words)
                state.note(f"SHELL {history_text.plain_list(instruction.words)}")
            case dockerfile.Maintainer():
                state.config = replace(state.config, author=instruction.name)
                state.note(f"MAINTAINER {instruction.name}")
            case dockerfile.Cmd():
                self._check_command(instruction, instruction.command, state)
                words = _command(instruction.command, state)
                state.config = replace(state.config, cmd=words, args_escaped=True)
                state.has_cmd = True
                state.note(f"CMD {history_text.quote_list(words)}")
            case dockerfile.Entrypoint():
                self._check_command(instruction, instruction.command, state)
                words = _command(instruction.command, state)
                cmd = state.config.cmd if state.has_cmd else None
                state.config = replace(state.config, entrypoint=words, cmd=cmd)
                state.note(f"ENTRYPOINT {history_text.quote_list(words)}")
            case (
                dockerfile.Env()
                | dockerfile.Label()
                | dockerfile.Expose()
                | dockerfile.Volume()
                | dockerfile.StopSignal()
                | dockerfile.Healthcheck()
            ):
                from builder.plan.convert_metadata import convert_metadata  # noqa: PLC0415  only with one of them

                convert_metadata(instruction, state, scope, self._checks.warn)
            case dockerfile.OnBuild():
                state.config = replace(state.config, on_build=(*state.config.on_build, instruction.text))
                self._triggers.setdefault(stage.index, []).append(instruction.instruction)
            case dockerfile.Run():
                self._run(instruction, state, scope, stage)
            case dockerfile.Copy() | dockerfile.Add():
                self._copy(instruction, state, scope, stage)
            case dockerfile.From():
                raise DockerfileError("FROM is not allowed here", span=instruction.span)
            case _:
                from typing import assert_never  # noqa: PLC0415  (only type checkers come here)

                assert_never(instruction)
        if scope.unset:
            declared = [name for name, _ in state.build_args]
            check_unset(instruction, scope.unset, declared, state.environ, self._checks.warn)

    def _arg(self, instruction: dockerfile.Arg, state: StageState, scope: Scope) -> None:
        shown: list[str] = []
        for name, default in instruction.pairs:
            value = self._request.build_args.get(name)
            if value is None:
                # The defaults of one ARG see the arguments before them in the same line.
                scope.environ = state.environ
                value = scope.text(default) if default is not None else self._global_args.get(name)
            if value is not None and name not in SCAN_ARGS:
                state.environ[name] = value
            state.build_args.append((name, value or ""))
            shown.append(name if value is None else f"{name}={value}")
        state.note(f"ARG {' '.join(shown)}")

    def _check_command(
        self, instruction: dockerfile.Cmd | dockerfile.Entrypoint, command: dockerfile.CommandLine, state: StageState
    ) -> None:
        if command.shell_form and not state.config.shell:
            keyword = instruction.node.keyword_word.text
            self._checks.warn(
                "JSONArgsRecommended",
                f"JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals",
                instruction.span,
            )

    def _workdir(self, instruction: dockerfile.Workdir, state: StageState, scope: Scope) -> None:
        written = scope.text(instruction.path)
        if not written.startswith("/") and not state.has_workdir:
            message = f'Relative workdir "{written}" can have unexpected results if the base image changes'
            self._checks.warn("WorkdirRelativePath", message, instruction.span)
        state.has_workdir = True
        path = (
            written if written.startswith("/") else posixpath.normpath(posixpath.join(state.working_directory, written))
        )
        state.config = replace(state.config, working_directory=path)
        clean = "/" + posixpath.normpath(path).lstrip("/")
        if clean == "/":
            state.note(f"WORKDIR {path}")
            return
        op = MakeDirectory(path=clean, user=state.config.user, epoch=self.epoch)
        vertex = self._vertex(instruction, state, op)
        state.advance(vertex, f"WORKDIR {path}")

    def _allowed_devices(self, instruction: dockerfile.Run) -> tuple[Device, ...]:
        """Refuse a RUN that asks for more than the user allows, and give its devices."""
        if instruction.network is None and instruction.security == "sandbox" and not instruction.devices:
            return ()  # it asks for nothing; whatever it could ask for is judged below, and there alone
        from builder.plan.entitlements import check_entitlements, plan_devices  # noqa: PLC0415  few builds need one

        check_entitlements(instruction, self._request.allow)
        return plan_devices(instruction, self._request.devices)

    def _run(self, instruction: dockerfile.Run, state: StageState, scope: Scope, stage: Stage) -> None:
        devices = self._allowed_devices(instruction)
        if instruction.network == "host" and self._request.network == "none":
            raise DockerfileError(
                "RUN --network=host is not allowed when the build's network is none",
                hint="build with --network host",
                span=instruction.span,
            )
        mounts, sources = self._mounts(instruction, state, scope, stage)  # nothing else in a RUN is expanded
        files: tuple[tuple[str, str], ...] = ()
        words = instruction.command.words
        if instruction.command.shell_form:
            program = instruction.program
            if program is not None:
                files = ((program.name, program.text),)
                words = (f"/dev/pipes/{program.name}",)
            else:
                words = (instruction.shell_text,)
            words = (*state.shell, *words)
        network = instruction.network or "default"
        if network == "default":
            network = self._request.network
        given = self._request.build_args
        op = RunCommand(
            args=words,
            environ=tuple(state.environ.items()),
            hidden_environ=proxy_environ(given, [name for name, _ in state.build_args]),
            cwd=state.working_directory,
            user=state.config.user,
            platform=str(state.platform),
            network=network,
            hostname=given.get("BUILDKIT_SANDBOX_HOSTNAME", DEFAULT_HOSTNAME),
            add_hosts=self._request.add_hosts,
            shm_size=self._request.shm_size,
            ulimits=self._request.ulimits,
            files=files,
            mounts=mounts,
            insecure=instruction.security == "insecure",
            devices=devices,
            build_args=frozenset(name for name, _ in state.build_args if state.is_build_arg(name)),
        )
        build_args = [(name, state.environ.get(name, value)) for name, value in state.build_args]
        text = history_text.run_command(words, build_args)
        state.advance(self._vertex(instruction, state, op, sources=sources), f"RUN {text}{HISTORY_SUFFIX}")

    def _mounts(
        self, instruction: dockerfile.Run, state: StageState, scope: Scope, stage: Stage
    ) -> tuple[tuple[PlannedMount, ...], tuple[Vertex, ...]]:
        """Plan the mounts of a RUN; return them and what they read from."""
        if not instruction.mounts:
            return (), ()
        from builder.plan.mounts import plan_mounts  # noqa: PLC0415  most commands mount nothing

        return plan_mounts(
            instruction.mounts,
            expand=scope.text,
            working_directory=state.working_directory,
            namespace=self._request.build_args.get("BUILDKIT_CACHE_MOUNT_NS", ""),
            find_source=lambda name: self._mount_source(instruction, name, stage),
        )

    def _copy(
        self, instruction: dockerfile.Copy | dockerfile.Add, state: StageState, scope: Scope, stage: Stage
    ) -> None:
        keyword = "COPY" if isinstance(instruction, dockerfile.Copy) else "ADD"
        paths = tuple(scope.text(path) for path in instruction.sources)
        local = paths
        remotes: tuple[RemoteSource, ...] = ()
        if any(re.match(_URL, path) for path in paths) or (
            isinstance(instruction, dockerfile.Add) and instruction.checksum
        ):
            local, remotes = self._remote_sources(instruction, paths, scope)
        destination = scope.text(instruction.destination)
        chown, chmod = scope.optional(instruction.chown), scope.optional(instruction.chmod)
        if chmod:
            from builder.plan.mode import Mode  # noqa: PLC0415  few builds have one

            Mode(chmod, span=instruction.span)  # a mode that is none is known before anything is done
        inline = tuple(scope.heredoc(file) for file in instruction.files)
        source: Vertex | None = None
        context: str | None = None
        if isinstance(instruction, dockerfile.Copy) and instruction.from_ is not None:
            named = self._find_context(instruction.from_, self._request.platform)
            if named is not None and named.kind == "directory":
                context = named.key
            else:
                source = self._copy_source(instruction, instruction.from_, stage)
        else:
            check_sources(keyword, local, instruction.span, self._checks)
        if isinstance(instruction, dockerfile.Add) and instruction.keep_git_dir and not remotes:
            raise DockerfileError(
                "--keep-git-dir requires Git sources", hint="remove --keep-git-dir", span=instruction.span
            )
        link = False
        if instruction.link:
            from builder.plan.link import is_linked  # noqa: PLC0415  as above

            link = is_linked(instruction, chown)
        op = CopyFiles(
            instruction=keyword,
            paths=local,
            remotes=remotes,
            context=context,
            inline=inline,
            destination=destination_path(destination, state.working_directory),
            chown=chown,
            chmod=chmod,
            exclude=instruction.exclude,
            parents=isinstance(instruction, dockerfile.Copy) and instruction.parents,
            unpack=isinstance(instruction, dockerfile.Add) and instruction.unpack is not False,
            link=link,
            epoch=self.epoch,
        )
        vertex = self._vertex(instruction, state, op, sources=(source,) if source else ())
        flags = ["--parents"] if op.parents else []
        flags += [f"--chown={chown}"] if chown else []
        flags += [f"--chmod={chmod}"] if chmod else []
        names = [f"<<{file.name}" for file in inline]
        shown = " ".join([keyword, *flags, *paths, *names, destination])
        if remotes:
            from builder.plan.remote_sources import redact  # noqa: PLC0415  as in _remote_sources

            shown = redact(shown)
        state.advance(vertex, shown + HISTORY_SUFFIX)

    def _remote_sources(
        self, instruction: dockerfile.Copy | dockerfile.Add, paths: tuple[str, ...], scope: Scope
    ) -> tuple[tuple[str, ...], tuple[RemoteSource, ...]]:
        """Split the sources of an ADD into paths and what comes from the network."""
        from builder.plan.remote_sources import redact, split_sources  # noqa: PLC0415  most files name no address

        if isinstance(instruction, dockerfile.Copy):
            from builder.context.git import is_git_url  # noqa: PLC0415  as above

            path = next(path for path in paths if re.match(_URL, path))
            kind = "git ref" if is_git_url(path) else "URL"
            raise DockerfileError(
                f"source can't be a {kind} for COPY: `{redact(path)}`",
                hint=f"use ADD, which fetches {kind}s",
                span=instruction.span,
            )

        return split_sources(instruction, paths, scope.optional(instruction.checksum))

    def _mount_source(self, instruction: dockerfile.Run, name: str, stage: Stage) -> Vertex:
        if name.isdecimal():
            raise DockerfileError(
                f"a mount cannot be from a stage by its number: `{name}`",
                hint="give the stage a name with AS, and write from=NAME",
                span=instruction.span,
            )
        return self._copy_source(instruction, name, stage) or _EMPTY

    def _copy_source(self, instruction: dockerfile.Copy | dockerfile.Run, name: str, stage: Stage) -> Vertex | None:
        """Find what `--from` names: an earlier stage by name or number, else an image."""
        if "$" in name:
            raise DockerfileError(
                "variable expansion is not supported for --from, define a new stage with FROM using ARG from global "
                "scope as a workaround",
                span=instruction.span,
            )
        earlier = self._find_earlier(name, stage)
        if earlier is not None:
            return self.stage_state(earlier).vertex or _EMPTY
        stages = self._source.stages
        if name.isdecimal() and (len(name) > _MAX_INDEX_DIGITS or int(name) >= len(stages)):
            raise DockerfileError(
                f"invalid stage index {shorten(name)}",
                hint=f"the first stage is 0, the last one {len(stages) - 1}",
                span=instruction.span,
            )
        later = [other.index for other in stages[stage.index :] if other.name == name.lower()]
        if stage.index in later or name == str(stage.index):
            raise DockerfileError(
                f"circular dependency detected on stage: {stage.name or f'stage-{stage.index}'}",
                hint="a stage can take files from stages above it only",
                span=instruction.span,
            )
        if later or name.isdecimal():
            raise DockerfileError(
                f'cannot copy from stage "{name}", it needs to be defined before current stage',
                hint="move that stage up",
                span=instruction.span,
            )
        if name == SCRATCH:
            return _EMPTY
        named = self._find_context(name, self._request.platform)
        if named is not None and named.kind == "directory":
            return self._context_vertex(named, instruction.span)
        if named is not None:
            image = self._context_image(named, self._request.platform, instruction.span)
            return self._image_vertex(image, named.value, f"FROM {name}", instruction.span)
        image = self._image(name, self._request.platform, instruction.span)
        return self._image_vertex(image, name, f"FROM {name}", instruction.span)

    def _vertex(
        self,
        instruction: dockerfile.Instruction,
        state: StageState,
        op: RunCommand | CopyFiles | MakeDirectory,
        *,
        sources: tuple[Vertex, ...] = (),
    ) -> Vertex:
        text = " ".join(instruction.original.split())
        if isinstance(op, CopyFiles) and op.remotes:
            from builder.plan.remote_sources import redact  # noqa: PLC0415  as in _remote_sources

            text = redact(text)
        stages = self._request.no_cache_stages
        return Vertex(
            op=op,
            parent=state.vertex,
            sources=sources,
            name=state.name_step(text),
            text=text,
            stage=state.stage_name,
            platform=state.prefix,
            span=instruction.span,
            no_cache=self._request.no_cache or state.stage_name.lower() in stages,
        )


_EMPTY = Vertex(op=EmptyFileSystem(), name="empty file system", text="", stage="")


def _count_steps(instructions: Iterable[dockerfile.Instruction]) -> int:
    return sum(isinstance(instruction, _WITH_LAYER) for instruction in instructions)


def _command(command: dockerfile.CommandLine, state: StageState) -> tuple[str, ...]:
    return (*state.shell, *command.words) if command.shell_form else command.words
