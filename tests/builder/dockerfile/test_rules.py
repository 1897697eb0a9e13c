"""The options of the build checks; what the rules find is in tests/builder/plan/test_check_values.py."""

import pytest

from builder.dockerfile.rules import RULES, Linter, LintError, check_dockerfile, parse_check_options, rule_url
from builder.dockerfile.stages import parse_dockerfile
from builder.errors import DockerfileError
from builder.source import SourceFile


def lint(text, override=None):
    """Check a Dockerfile by the rules that need its text only."""
    source = parse_dockerfile(SourceFile("Dockerfile", text))
    linter = Linter(source, override)
    check_dockerfile(source, linter.warn)
    return linter


@pytest.mark.parametrize(
    ("rule", "page"),
    [
        ("StageNameCasing", "stage-name-casing"),
        ("JSONArgsRecommended", "json-args-recommended"),
        ("SecretsUsedInArgOrEnv", "secrets-used-in-arg-or-env"),
        ("FromPlatformFlagConstDisallowed", "from-platform-flag-const-disallowed"),
    ],
)
def test_rule_has_a_page(rule, page):
    """The address has the name of the rule in kebab case."""
    assert rule_url(rule) == f"https://docs.docker.com/go/dockerfile/rule/{page}/"


def test_there_are_22_rules():
    """All rules of BuildKit are known by name."""
    assert len(RULES) == 22


@pytest.mark.parametrize(
    ("text", "skip", "experimental", "error"),
    [
        ("", set(), set(), False),
        ("skip=A,B", {"A", "B"}, set(), False),
        (" skip = A , B ; error = true ", {"A", "B"}, set(), True),
        ("error=False;experimental=all", set(), {"all"}, False),
    ],
)
def test_check_options_are_read(text, skip, experimental, error):
    """Parts are separated by semicolons, names by commas, blanks do not matter."""
    options = parse_check_options(text)

    assert (set(options.skip), set(options.experimental), options.error) == (skip, experimental, error)


@pytest.mark.parametrize("text", ["nope", "nope=1", "error=maybe", "skip=A;error=true;experimental=B;skip=C"])
def test_check_options_that_are_unknown_are_refused(text):
    """Words that mean nothing are errors."""
    with pytest.raises(DockerfileError, match="invalid check option"):
        parse_check_options(text)


def test_wrong_directive_is_shown_in_its_line():
    """The error points at the directive."""
    with pytest.raises(DockerfileError, match="invalid check option `nope`") as caught:
        lint("# escape=\\\n# check=nope\nFROM scratch\n")

    assert caught.value.span.line == 2


def test_build_argument_replaces_the_directive():
    """BUILDKIT_DOCKERFILE_CHECK wins over what the file says."""
    text = "# check=skip=all\nFROM scratch\nMAINTAINER me\n"

    assert [violation.rule for violation in lint(text, "error=true").sorted()] == ["MaintainerDeprecated"]


def test_binding_rules_are_named_together():
    """With `error=true` the build is refused by one error that names each rule once, in the order of the file."""
    linter = lint("# check=error=true\nFROM scratch AS A\nMAINTAINER me\nMAINTAINER me\n")

    with pytest.raises(LintError, match=r"^lint violation found for rules: StageNameCasing, MaintainerDeprecated$"):
        linter.raise_if_binding()


def test_rules_that_are_not_binding_refuse_nothing():
    """Without `error=true` violations are only told."""
    linter = lint("FROM scratch\nMAINTAINER me\n")
    linter.raise_if_binding()

    assert linter.sorted()[0].summary == (
        "MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)"
    )
