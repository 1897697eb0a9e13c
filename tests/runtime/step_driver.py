"""Run the steps that standard input describes inside a namespace, and print what came of them as JSON.

A process of its own, because namespaces are entered before any thread exists, and a test runner may have some. Ends
with status 4 and the reason if the host gives no namespace.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from runtime.errors import HostUnsupportedError, SandboxError
from runtime.namespace import run_in_namespace

DEFAULTS = {
    "environ": [["PATH", "/bin"]],
    "cwd": "/",
    "user": "",
    "hosts": "127.0.0.1 localhost\n",
    "resolv_conf": "nameserver 192.0.2.1\n",
    "hostname": "buildkitsandbox",
    "network": "host",
    "binds": [],
    "layer_mounts": [],
    "tmpfs": [],
    "shm_size": 1 << 20,
    "interactive": False,
    "ulimits": [],
}


def run_request(request: dict) -> list[dict]:
    """Run the steps of a request one after the other; called inside."""
    from runtime.zygote import Zygote  # noqa: PLC0415 - as the builder does: only inside

    lowers = [request["image"]]
    results = []
    with Zygote() as zygote:
        for index, step in enumerate(request["steps"]):
            results.append(run_one(zygote, request, index, {"lowers": lowers, **step}))
            if request.get("stacked"):
                lowers = [*lowers, str(Path(request["scratch"]) / f"step-{index}" / "upper")]
    for index in range(len(results)):
        shutil.rmtree(Path(request["scratch"]) / f"step-{index}")
    return results


def describe_layer(upper: Path, lowers: list[str]) -> dict:
    """Return the entries of the layer that the upper directory holds, by path."""
    from runtime.layers.archive import ArchiveWriter  # noqa: PLC0415
    from runtime.layers.diff import write_changes  # noqa: PLC0415

    entries: list = []
    write_changes(upper, [Path(lower) for lower in lowers], ArchiveWriter(lambda _: None), on_entry=entries.append)
    return {
        os.fsdecode(entry.path): {
            "kind": entry.kind.name.lower(),
            "mode": f"{entry.mode:o}",
            "owner": [entry.uid, entry.gid],
            "device": list(entry.device),
            "xattrs": [name for name, _ in entry.xattrs],
        }
        for entry in entries
    }


def run_one(zygote, request: dict, index: int, step: dict) -> dict:
    """Run one step and return its status or error, its output, and what it left in the upper directory."""
    from runtime.spec import SandboxSpec  # noqa: PLC0415
    from runtime.stubs import make_skeleton, remove_stubs  # noqa: PLC0415

    scratch = Path(request["scratch"]) / f"step-{index}"
    upper, work = scratch / "upper", scratch / "work"
    upper.mkdir(parents=True)
    work.mkdir()
    lowers = step.pop("lowers")
    changes = {"upper": str(upper), "work": str(work)}
    if step.pop("read_only", False):
        changes = {"upper": None, "work": None}
    keep = step.pop("keep_stubs", False)
    if step.pop("has_skeleton", False):
        changes["skeleton"] = str(make_skeleton(scratch / "skeleton"))
    text = step.pop("stdin", None)
    spec = SandboxSpec.from_json({**DEFAULTS, "lowers": lowers, **changes, **step})
    result: dict = {"status": None, "error": None}
    with (scratch / "out").open("wb+") as out, (scratch / "err").open("wb+") as err:
        source = None
        if text is not None:
            source, writer = os.pipe()
            os.write(writer, text.encode())
            os.close(writer)
        try:
            ended = zygote.run(spec, stdin=source, stdout=out.fileno(), stderr=err.fileno()).wait()
            result["status"] = ended.status
            if not keep:
                remove_stubs(upper, ended.stubs)
        except SandboxError as error:
            result["error"] = {
                "class": type(error).__name__,
                "message": error.message,
                "hint": error.hint,
                "status": getattr(error, "status", None),
                "stage": getattr(error, "stage", None),
            }
        out.seek(0)
        err.seek(0)
        result |= {"stdout": out.read().decode(), "stderr": err.read().decode()}
    left = sorted(upper.rglob("*"))
    result["left"] = [str(path.relative_to(upper)) for path in left]
    result["owners"] = {str(p.relative_to(upper)): [p.lstat().st_uid, p.lstat().st_gid] for p in left}
    result["layer"] = describe_layer(upper, lowers)
    return result


def main() -> int:
    """Read the request, enter the namespace, print the results."""
    request = json.load(sys.stdin)

    def body() -> int:
        json.dump(run_request(request), sys.stdout)
        return 0

    try:
        return run_in_namespace(body, ids="single" if request["single_id"] else "best")
    except HostUnsupportedError as error:
        sys.stderr.write(error.message)
        return 4


if __name__ == "__main__":
    sys.exit(main())
