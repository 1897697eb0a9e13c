"""Values of HCL expressions, and of templates: texts with `${expression}` in them.

The syntax is that of python-hcl2, whose trees of rules are walked here; it gives no values itself.

Source: HCL, hclsyntax/spec.md, sections Expressions and Templates.
"""

from __future__ import annotations

import re
import textwrap
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from builder.bake.document import LARGEST_TEXT, EvaluationError
from builder.bake.functions import FUNCTIONS, is_equal, negate_switch, to_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from builder.bake.document import Scope

_OPERATORS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "==": is_equal,
    "!=": lambda left, right: not is_equal(left, right),
    "+": FUNCTIONS["add"],
    "-": FUNCTIONS["subtract"],
    "*": FUNCTIONS["multiply"],
    "/": FUNCTIONS["divide"],
    "%": FUNCTIONS["modulo"],
    "<": FUNCTIONS["lessthan"],
    ">": FUNCTIONS["greaterthan"],
    "<=": lambda left, right: not FUNCTIONS["greaterthan"](left, right),
    ">=": lambda left, right: not FUNCTIONS["lessthan"](left, right),
}
_LITERALS: Final = {"true": True, "false": False, "null": None}


def evaluate(rule: Any, scope: Scope) -> Any:
    """Return the value of an expression.

    Args:
        rule: of python-hcl2, an expression.
        scope: the names it may use.

    Raises:
        EvaluationError: it has none.
    """
    scope.count()
    match rule.lark_name():
        case "expr_term":
            return evaluate(rule.expression, scope)
        case "string":
            return _evaluate_string(rule, scope)
        case "heredoc_template":
            return evaluate_template(_heredoc_text(rule), scope)
        case "heredoc_template_trim":
            return evaluate_template(textwrap.dedent(_heredoc_text(rule)), scope)
        case "int_lit":
            return int(str(rule.token))
        case "float_lit":
            return float(str(rule.token))
        case "identifier":
            return scope.find(str(rule.token))
        case "literal_value":
            return _LITERALS[str(rule.token)]
        case "tuple":
            return [evaluate(element, scope) for element in rule.elements]
        case "object":
            return {_evaluate_key(item.key, scope): evaluate(item.expression, scope) for item in rule.elements}
        case "conditional":
            return evaluate(rule.if_true if _is_true(evaluate(rule.condition, scope)) else rule.if_false, scope)
        case "binary_op":
            return _evaluate_binary(rule, scope)
        case "unary_op":
            value = evaluate(rule.expr_term, scope)
            return negate_switch(value) if rule.operator == "!" else _calculate("-", 0, value)
        case "function_call":
            return _evaluate_call(rule, scope)
        case "index_expr_term" | "get_attr_expr_term":
            term, accessor = rule.children
            return _access(evaluate(term, scope), accessor, scope)
        case "full_splat_expr_term" | "attr_splat_expr_term":
            return _evaluate_splat(rule, scope)
        case "for_tuple_expr":
            return [evaluate(rule.value_expr, inner) for inner in _iterate(rule, scope)]
        case "for_object_expr":
            return _evaluate_for_object(rule, scope)
        case other:
            raise EvaluationError(f"an expression of a kind that is not supported, {other.replace('_', ' ')}")


def evaluate_template(text: str, scope: Scope) -> Any:
    """Return a text with what it has in `${}` put in; a text that is nothing but one `${}` is its value.

    Raises:
        EvaluationError: an expression is none, or has no value.
    """
    parts: list[Any] = []
    position = 0
    while found := re.compile(r"\$\$\{|%%\{|\$\{|%\{").search(text, position):
        parts.append(text[position : found.start()])
        if found[0] in {"$${", "%%{"}:
            parts.append(found[0][1:])
            position = found.end()
            continue
        if found[0] == "%{":
            raise EvaluationError("directives in templates are not supported", hint="write %%{ for the characters")
        end = _find_end(text, found.end())
        value = evaluate(_parse(text[found.end() : end]), scope)
        if not found.start() and end == len(text) - 1:
            return value
        parts.append(value)
        position = end + 1
    return _join((*parts, text[position:]))


def _find_end(text: str, start: int) -> int:
    """Find the brace that ends an expression; braces in its quoted texts are none."""
    depth, quoted = 1, False
    nested: list[int] = []
    position = start
    while position < len(text):
        character = text[position]
        if quoted and character == "\\":
            position += 1
        elif quoted and text.startswith("${", position):
            nested.append(depth)
            depth, quoted = depth + 1, False
            position += 1
        elif character == '"':
            quoted = not quoted
        elif not quoted and character == "{":
            depth += 1
        elif not quoted and character == "}":
            depth -= 1
            if not depth:
                return position
            if nested and depth == nested[-1]:
                nested.pop()
                quoted = True
        position += 1
    raise EvaluationError("a ${ without its }")


@lru_cache(maxsize=1000)
def _parse(text: str) -> Any:
    import hcl2  # noqa: PLC0415  (a quarter of a second)
    from lark.exceptions import LarkError  # noqa: PLC0415  (as above)

    try:
        body = hcl2.parses(f"value = {text.strip()}\n").body
    except (LarkError, RecursionError) as error:
        raise EvaluationError(f"not an expression, {text.strip()}") from error
    attributes = [child for child in body.children if child.lark_name() == "attribute"]
    if len(attributes) != 1:
        raise EvaluationError(f"not an expression, {text.strip()}")
    return attributes[0].expression


def _evaluate_string(rule: Any, scope: Scope) -> Any:
    from hcl2.utils import process_escape_sequences  # noqa: PLC0415  (imported by then)

    parts: list[Any] = []
    for part in rule.string_parts:
        content = part.content
        match content.lark_name():
            case "STRING_CHARS":
                parts.append(process_escape_sequences(str(content)))
            case "ESCAPED_INTERPOLATION" | "ESCAPED_DIRECTIVE":
                parts.append(process_escape_sequences(str(content)[1:]))
            case "interpolation":
                parts.append(evaluate(content.expression, scope))
            case _:
                raise EvaluationError("directives in templates are not supported", hint="write %%{ for the characters")
    if len(parts) == 1 and not isinstance(parts[0], str):
        return parts[0]
    return _join(parts)


def _join(parts: Iterable[Any]) -> str:
    texts = [to_text(part) for part in parts]
    if sum(map(len, texts)) > LARGEST_TEXT:
        raise EvaluationError("a text is too long")
    return "".join(texts)


def _heredoc_text(rule: Any) -> str:
    raw = str(rule.heredoc).replace("\r\n", "\n")
    lines = raw.split("\n")
    # The first line opens it; the last but an empty one closes it.
    last = len(lines) - 1 if lines[-1].strip() else len(lines) - 2
    return "".join(f"{line}\n" for line in lines[1:last])


def _evaluate_key(key: Any, scope: Scope) -> str:
    """Return the name of a field of an object: a name without quotes is itself."""
    if key.lark_name() == "object_elem_key":
        return str(key.value.token) if key.value.lark_name() == "identifier" else to_text(evaluate(key.value, scope))
    return to_text(evaluate(key.expression, scope))


def _is_true(value: Any) -> bool:
    if value in {"true", "false"} if isinstance(value, str) else isinstance(value, bool):
        return value in {True, "true"}
    raise EvaluationError("a condition is true or false")


def _evaluate_binary(rule: Any, scope: Scope) -> Any:
    operator = str(rule.binary_term.binary_operator.token)
    left = evaluate(rule.expr_term, scope)
    if operator in {"&&", "||"}:
        if _is_true(left) == (operator == "||"):
            return operator == "||"
        return _is_true(evaluate(rule.binary_term.expr_term, scope))
    return _calculate(operator, left, evaluate(rule.binary_term.expr_term, scope))


def _calculate(operator: str, left: Any, right: Any) -> Any:
    try:
        return _OPERATORS[operator](left, right)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise EvaluationError(f"{operator} cannot do with these values") from error


def _evaluate_call(rule: Any, scope: Scope) -> Any:
    name = "::".join(str(identifier.token) for identifier in rule.identifiers)
    arguments: list[Any] = []
    if rule.arguments is not None:
        arguments = [evaluate(argument, scope) for argument in rule.arguments.arguments]
        if rule.arguments.has_ellipsis:
            last = arguments.pop()
            if not isinstance(last, list):
                raise EvaluationError("what ... takes apart is a list")
            arguments += last
    return scope.call(name, arguments)


def _access(value: Any, accessor: Any, scope: Scope) -> Any:
    match accessor.lark_name():
        case "get_attr":
            index: Any = str(accessor.identifier.token)
        case "short_index":
            index = int(str(accessor.index))
        case _:
            index = evaluate(accessor.index_expression, scope)
    try:
        if isinstance(value, dict):
            return value[to_text(index)]
        if isinstance(value, list) and isinstance(index, int) and not isinstance(index, bool) and index >= 0:
            return value[index]
    except LookupError:
        pass
    raise EvaluationError(f"there is no {to_text(index)} in it")


def _evaluate_splat(rule: Any, scope: Scope) -> list[Any]:
    value = evaluate(rule.expr_term, scope)
    items = value if isinstance(value, list) else [] if value is None else [value]
    accessors = rule.attr_splat.children[1:]
    results = []
    for item in items:
        for accessor in accessors:
            item = _access(item, accessor, scope)  # noqa: PLW2901  (a chain)
        results.append(item)
    return results


def _iterate(rule: Any, scope: Scope) -> Iterable[Scope]:
    """Yield the scope of each round of a `for`."""
    intro = rule.for_intro
    items = evaluate(intro.iterable, scope)
    if isinstance(items, dict):
        pairs: Iterable[tuple[Any, Any]] = items.items()
    elif isinstance(items, list):
        pairs = enumerate(items)
    else:
        raise EvaluationError("what for goes through is a list or an object")
    first = str(intro.first_iterator.token)
    second = None if intro.second_iterator is None else str(intro.second_iterator.token)
    for key, value in pairs:
        inner = scope.within({first: value} if second is None else {first: key, second: value})
        if rule.condition is None or _is_true(evaluate(rule.condition.condition_expr, inner)):
            yield inner


def _evaluate_for_object(rule: Any, scope: Scope) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for inner in _iterate(rule, scope):
        key, value = to_text(evaluate(rule.key_expr, inner)), evaluate(rule.value_expr, inner)
        if rule.ellipsis is not None:
            result.setdefault(key, []).append(value)
        elif key in result:
            raise EvaluationError(f"for gives the field {key} twice", hint="write ... after the value to collect them")
        else:
            result[key] = value
    return result
