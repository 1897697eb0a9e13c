"""Tests of builder.bake.bake_file, with the files in JSON and HCL it reads and the expressions in them."""

from __future__ import annotations

import json

import pytest

from builder.bake.bake_file import read_bake_files
from builder.bake.definition import Variable
from builder.bake.files import DefinitionFile
from builder.bake.variables import Variables
from builder.errors import BakeFileError

NOW = 1_700_000_000
GROWING = 'A{} = "{}"'


def _read(*texts, given=None, **variables):
    """Read files in HCL, or in JSON where they begin like an object."""
    files = [
        DefinitionFile(f"`{n}.{'json' if text[0] == '{' else 'hcl'}`", text.encode()) for n, text in enumerate(texts)
    ]
    known = Variables(environ={}, given=given or {}, variables=variables, local_platform="linux/amd64", now=NOW)
    return read_bake_files(files, known)


def _value(expression, head="", **variables):
    """Return what an expression gives as the text of an argument; null is none."""
    found = _read(f'{head}\ntarget "a" {{\n  args = {{ X = {expression} }}\n}}', **variables)
    return found.targets["a"].values["args"].get("X")


BOTH = [
    """
    variable "TAG" { default = "latest" }
    group "default" { targets = ["a", "b"] }
    target "b" { inherits = ["a"] }
    target "a" {
      tags = ["me/a:${TAG}"]
      args = { N = 3, NONE = null }
      contexts = { c = "target:c" }
      output = ["type=oci,dest=x", { type = "local", dest = "o" }]
      no-cache = true
    }
    """,
    json.dumps(
        {
            "variable": {"TAG": {"default": "latest"}},
            "group": {"default": {"targets": ["a", "b"]}},
            "target": {
                "b": {"inherits": ["a"]},
                "a": {
                    "tags": ["me/a:${TAG}"],
                    "args": {"N": 3, "NONE": None},
                    "contexts": {"c": "target:c"},
                    "output": ["type=oci,dest=x", {"type": "local", "dest": "o"}],
                    "no-cache": True,
                },
            },
        }
    ),
]


@pytest.mark.parametrize("text", BOTH, ids=["hcl", "json"])
def test_bake_file_says_the_same_in_both_languages(text):
    """Groups, targets, variables and their values are read from HCL as from JSON."""
    found = _read(text.strip(), TAG="7")

    assert found.groups == {"default": ("a", "b")}
    assert found.variables == {"TAG": Variable("7")}
    assert found.targets["b"].inherits == ("a",)
    assert found.targets["a"].values == {
        "tags": ("me/a:7",),
        "args": {"N": "3"},
        "contexts": {"c": "target:c"},
        "output": ({"type": "oci", "dest": "x"}, {"type": "local", "dest": "o"}),
        "no-cache": True,
    }


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('"plain"', "plain"),
        (r'"a\n\"b\" $${X} \u00e9"', 'a\n"b" ${X} é'),
        ('"${"in${"ner"}"}"', "inner"),
        ("1 + 2 * 3 - 4", "3"),
        ("7 / 2", "3.5"),
        ("(1 + 2) * 3 == 9 && !false", "true"),
        ('1 == "1" || 1 == true', "false"),
        ("-2 < 1 ? null : 5", None),
        ("[1, [2, 3]][1][0]", "2"),
        ('{ a = { "b" = "c" } }.a["b"]', "c"),
        ('join(",", [for i, v in ["a", "b"] : "${i}${v}" if v != "a"])', "1b"),
        ('join(",", values({ for k, v in { a = 1, b = 2 } : upper(k) => v + 1 }))', "2,3"),
        ('join(",", [{ n = "a" }, { n = "b" }][*].n)', "a,b"),
        ('format("%s-%03d-%q", "a", 7, "b")', 'a-007-"b"'),
        ('coalesce(null, "x")', "x"),
        ('contains(["a"], "a") ? replace("a.b", ".", "-") : ""', "a-b"),
        ('join("", concat(["a"], split("/", "b/c")))', "abc"),
        ("max([1, 3, 2]...)", "3"),
        ("timestamp()", "2023-11-14T22:13:20Z"),
        ('sha256("")', "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("<<E\n  a ${1}\n  b\nE\n", "  a 1\n  b\n"),
        ("<<-E\n  a\n    b\n  E\n", "a\n  b\n"),
        ("BAKE_LOCAL_PLATFORM", "linux/amd64"),
    ],
)
def test_expression_has_the_value_that_hcl_gives_it(expression, expected):
    """Operators, templates, indexes, loops, functions."""
    assert _value(expression) == expected


def test_template_in_json_may_hold_quotes_and_braces():
    """What is in ${} ends at its own brace."""
    text = json.dumps(
        {"target": {"a": {"args": {"X": 'a${equal("}", "}") ? "{" : "x"}b', "Y": "$${Z}", "Z": "${[1][0]}"}}}}
    )

    assert _read(text).targets["a"].values["args"] == {"X": "a{b", "Y": "${Z}", "Z": "1"}


def test_functions_of_the_file_are_called():
    """They take parameters, and the rest of the arguments as a list."""
    head = 'function "f" {\n  params = [a]\n  variadic_params = r\n  result = "${a}:${join("", r)}:${V}"\n}\nV = "v"'

    assert _value('f("x", "y", "z")', head) == "x:yz:v"


@pytest.mark.parametrize(
    ("default", "variables", "expected"),
    [
        ('"d"', {}, "d"),
        ('"d"', {"V": ""}, ""),
        ("false", {"V": "true"}, "yes"),
        ("2", {"V": "40"}, "42"),
        ('["a"]', {"V": "b,c"}, "b c"),
        ('["a"]', {"V_JSON": '["d"]'}, "d"),
    ],
)
def test_variable_of_the_environment_has_the_kind_of_the_default(default, variables, expected):
    """A variable that is a switch, number or list stays one."""
    use = {"false": 'V ? "yes" : "no"', "2": "V + 2", '["a"]': 'join(" ", V)'}.get(default, "V")

    assert _value(use, f'variable "V" {{ default = {default} }}', **variables) == expected


def test_variable_of_the_command_line_counts_most():
    """`--var` comes before the environment, and that before the default; other variables are not seen."""
    found = _read('variable "V" { default = "d" }', given={"V": "given"}, V="environment")

    assert found.variables["V"].value == "given"
    with pytest.raises(BakeFileError, match="no such variable, HOME"):
        _value("HOME", HOME="/root")


def test_matrix_makes_a_target_for_each_combination():
    """The block's own name is a group of them."""
    found = _read(
        'target "t" {\n  matrix = { a = ["x", "y"], b = [1, 2] }\n  name = "t-${a}-${b}"\n  args = { B = b }\n}'
    )

    assert found.groups == {"t": ("t-x-1", "t-x-2", "t-y-1", "t-y-2")}
    assert found.targets["t-y-2"].values["args"] == {"B": "2"}


def test_bake_files_are_one():
    """A variable of one file is known in another, a later target is merged into an earlier one."""
    found = _read(
        'variable "V" { default = "v" }\ntarget "a" { args = { A = "1" } }', '{"target": {"a": {"tags": ["${V}"]}}}'
    )

    assert found.targets["a"].values == {"args": {"A": "1"}, "tags": ("v",)}


@pytest.mark.parametrize(
    ("text", "reason", "path"),
    [
        ("{", "not JSON, ", ""),
        ('{"target": {"a": {"tags": "x"}}}', "expected a list, found a string", "target.a.tags"),
        ('{"target": {"a": {"args": {"X": [1]}}}}', "expected a string, found a list", "target.a.args.X"),
        ('{"target": {"a": {"tgs": []}}}', "unknown key", "target.a.tgs"),
        ('{"targets": {}}', "unknown key", "targets"),
        ('{"target": {"a": {}, "a": {}}}', "key stands twice: a", ""),
        ('{"target": {"a": {"context": "${"}}}', "a ${ without its }", "target.a.context"),
        ('{"target": {"a": {"context": "${1 +}"}}}', "not an expression, 1 +", "target.a.context"),
        ('{"target": {"a": {"policy": []}}}', "not supported yet", "target.a.policy"),
        ('{"target": {"a b": {}}}', "a name is made of letters", "target.a b"),
        ("{" * 50_000, "not JSON, ", ""),
        ('target "a" {', "not HCL in line", ""),
        ('target "a" {\n  tags = [\n', "not HCL in line", ""),
        ('target "a" {\n  target = "x"\n  target = "y"\n}', "stands twice", "target.a.target"),
        ('target "a" "b" {}', "a block has one name", "target"),
        ('goup "a" {}', "unknown key", "goup"),
        ('group "g" {}', "group g has no targets", "group.g"),
        ('target "a" { target = upper("a", "b") }', "function upper cannot do with these arguments", "target.a.target"),
        ('target "a" { target = uper("a") }', "no such function, uper", "target.a.target"),
        ('target "a" { target = X }', "no such variable, X", "target.a.target"),
        ('target "a" { target = "${[1]}" }', "expected a string, found a list", "target.a.target"),
        ('target "a" { target = "x${[1]}" }', "a list is no text", "target.a.target"),
        ('A = B\nB = A\ntarget "a" { target = A }', "in a circle, A -> B -> A", "target.a.target"),
        ('function "f" {\n  params = []\n  result = f()\n}\ntarget "a" { target = f() }', "calls itself", "target.a.target"),
        ('target "a" {\n  matrix = { x = [1, 2] }\n}', "two targets of the matrix are called a", "target.a"),
        ('target "a" { name = "b" }', "only a target with a matrix", "target.a.name"),
        ('variable "V" {\n  default = "x"\n  validation {\n    condition = V == "y"\n    error_message = "Use y."\n  }\n}',
         "the value is not valid, Use y", "variable.V.validation"),
        ('A0 = "aaaaaaaaaa"\n' + "\n".join(GROWING.format(n, f"${{A{n - 1}}}" * 10) for n in range(1, 9)) +
         '\ntarget "a" { target = A8 }', "a text is too long", "target.a.target"),
        ('L = range(1000)\ntarget "a" { tags = [for a in L : [for b in L : [for c in L : 1]]] }',
         "too much work", "target.a.tags"),
    ],
)  # fmt: skip
def test_bake_file_refuses_what_cannot_be(text, reason, path):
    """The message says what is wrong and where; a file cannot ask for endless work."""
    with pytest.raises(BakeFileError) as caught:
        _read(text)

    assert reason in caught.value.reason
    assert caught.value.path == path
