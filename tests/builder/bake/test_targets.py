"""Tests of builder.bake.targets."""

from __future__ import annotations

import pytest

from builder.bake.definition import Definitions, Place, join_definitions, read_target
from builder.bake.targets import parse_override, select_targets
from builder.errors import BakeError, UsageError


def _define(groups=None, **targets):
    return Definitions(
        targets={name: read_target(name, fields, Place("f", name)) for name, fields in targets.items()},
        groups=groups or {},
    )


def _select(definitions, *names, sets=(), **environ):
    return select_targets(definitions, names, [parse_override(text) for text in sets], environ)


def test_targets_default_to_the_group_of_that_name():
    """Without a name the group default is built, and all targets where there is none."""
    both = {"a": {}, "b": {}}

    assert list(_select(_define({"default": ("b",)}, **both)).targets) == ["b"]
    assert list(_select(_define(**both)).targets) == ["a", "b"]


def test_targets_of_groups_of_groups_are_built_once():
    """A group may name groups, patterns name both."""
    found = _define({"one": ("a", "b"), "two": ("one", "b", "c")}, a={}, b={}, c={}, d={})

    assert list(_select(found, "two").targets) == ["a", "b", "c"]
    assert list(_select(found, "t*", "d").targets) == ["a", "b", "c", "d"]
    assert _select(found, "two").groups == {
        "two": ("one", "b", "c"),
        "one": ("a", "b"),
        "default": ("two",),
    }


def test_targets_inherit_with_the_last_counting_most():
    """Pairs are joined by name, tags replaced, annotations added; the target's own counts most."""
    found = _define(
        x={"args": {"A": "x", "B": "x"}, "tags": ["x"], "annotations": ["x=1"], "target": "x"},
        y={"args": {"B": "y"}, "tags": ["y"], "annotations": ["y=1"]},
        a={"inherits": ["x", "y"], "args": {"C": "a"}, "annotations": ["a=1"]},
    )

    target = _select(found, "a").targets["a"]

    assert target.pairs("args") == {"A": "x", "B": "y", "C": "a"}
    assert target.texts("tags") == ("y",)
    assert target.texts("annotations") == ("x=1", "y=1", "a=1")
    assert (target.text("target"), target.text("context"), target.text("dockerfile")) == ("x", ".", "Dockerfile")


def test_targets_of_later_files_are_merged_into_earlier_ones():
    """An override file says only what differs."""
    found = join_definitions(
        [_define({"default": ("a",)}, a={"tags": ["x"], "args": {"A": "1"}}), _define(a={"tags": ["y"]})]
    )

    assert _select(found).targets["a"].values["tags"] == ("y",)
    assert _select(found).targets["a"].values["args"] == {"A": "1"}


def test_links_are_built_before_what_links_to_them():
    """A link that nobody named has no output, one that is named keeps its own; waves follow the links."""
    found = _define(
        a={"contexts": {"x": "target:b", "y": "target:c"}},
        b={"contexts": {"z": "target:c"}, "entitlements": ["network.host"]},
        c={"output": ["type=oci,dest=c.tar"]},
    )

    selection = _select(found, "a", "c")

    assert list(selection.waves()) == [("c",), ("b",), ("a",)]
    assert selection.linked == {"b"}
    assert selection.targets["b"].entries("output") == ({"type": "cacheonly"},)
    assert selection.targets["c"].entries("output") == ({"type": "oci", "dest": "c.tar"},)
    assert selection.targets["a"].texts("entitlements") == ("network.host",)


@pytest.mark.parametrize(
    ("sets", "key", "value"),
    [
        (["a.tags=y"], "tags", ("y",)),
        (["a.tags=y", "a.tags=z"], "tags", ("y", "z")),
        (["a.tags+=y"], "tags", ("x", "y")),
        (["*.args.B=2"], "args", {"A": "1", "B": "2"}),
        (["?.args.HERE", "a.args.GONE"], "args", {"A": "1", "HERE": "h"}),
        (["a.platform=linux/arm64"], "platforms", ("linux/arm64",)),
        (["a.no-cache=true"], "no-cache", True),
        (["a.secrets=id=s,src=f"], "secret", ({"id": "s", "src": "f"},)),
        (["a.contexts.c=target:b"], "contexts", {"c": "target:b"}),
        (["a.output=out"], "output", ({"type": "local", "dest": "out"},)),
        (["*.push=true"], "output", ({"type": "image", "push": "true"},)),
        (["*.load=true"], "output", ({"type": "docker"},)),
        (["a.output=type=registry", "*.push=false"], "output", ()),
        (["a.attest=type=sbom", "*.attest=type=sbom,disabled=true"], "attest", ({"type": "sbom", "disabled": "true"},)),
    ],
)
def test_override_replaces_or_adds(sets, key, value):
    """`=` takes the place of what the file says, `+=` and a second one for the key add to it."""
    found = _define(a={"tags": ["x"], "args": {"A": "1"}}, b={})

    assert _select(found, "a", sets=sets, HERE="h").targets["a"].values[key] == value


def test_override_of_what_is_inherited_reaches_the_heir():
    """A value that is replaced in a target is inherited as replaced, unless the heir has its own."""
    found = _define(base={"args": {"A": "1"}}, a={"inherits": ["base"]}, b={"inherits": ["base"], "args": {"A": "b"}})

    selection = _select(found, "a", "b", sets=["base.args.A=2"])

    assert [selection.targets[name].pairs("args") for name in "ab"] == [{"A": "2"}, {"A": "b"}]


@pytest.mark.parametrize(
    ("names", "sets", "message", "hint"),
    [
        (("ap",), (), "no such target: `ap`", "did you mean app?"),
        (("x*",), (), "no such target: `x*`", "there are: app, other"),
        ((), ("x.tags=1",), "option --set: no such target: `x`", "there are: app, other"),
        ((), ("app.tgs=1",), "option --set: unknown key: `tgs`", "did you mean tags?"),
        ((), ("tags=1",), "option --set: not a target and a key: `tags=1`", "write it like app.tags=me/app:1"),
        ((), ("app.args=1",), "option --set: a name is missing: `app.args=1`", "write it like app.args.NAME=VALUE"),
        ((), ("app.tags",), "option --set: a value is missing: `app.tags`", "write it like app.tags=me/app:1"),
        ((), ("app.inherits=x",), "option --set: what a target inherits cannot be replaced: `app.inherits=x`", None),
    ],
)  # fmt: skip
def test_names_that_are_not_there_are_refused(names, sets, message, hint):
    """Targets and keys of the command line are answered with near ones."""
    with pytest.raises(UsageError) as caught:
        _select(_define(app={}, other={}), *names, sets=sets)

    assert (caught.value.message, caught.value.hint) == (message, hint)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ({"a": {"inherits": ["b"]}, "b": {"inherits": ["a"]}}, "inherit from each other in a circle: `a -> b -> a`"),
        ({"a": {"contexts": {"x": "target:a"}}}, "link to each other in a circle: `a -> a`"),
        ({"a": {"contexts": {"x": "target:b"}}, "b": {"contexts": {"y": "target:a"}}}, "circle: `a -> b -> a`"),
        ({"a": {"inherits": ["z"]}}, "no such target, which inherits of target a names: `z`"),
        ({"a": {"contexts": {"x": "target:z"}}}, "no such target, which a context of target a names: `z`"),
        (
            {
                "a": {"contexts": {"x": "target:b"}, "platforms": ["linux/amd64", "linux/arm64"]},
                "b": {"platforms": ["linux/amd64", "linux/386"]},
            },
            "target a is built for platforms that target b is not: `linux/arm64`",
        ),
    ],
)
def test_targets_that_do_not_fit_together_are_refused(targets, message):
    """Circles, names of nothing and platforms that a link lacks are named."""
    with pytest.raises(BakeError) as caught:
        _select(_define(**targets), "a")

    assert message in caught.value.message


def test_group_that_names_nothing_is_refused():
    """A member that is no target is named with its group."""
    with pytest.raises(BakeError, match="no such target, which group g names: `z`"):
        _select(_define({"g": ("z",)}, a={}), "g")
