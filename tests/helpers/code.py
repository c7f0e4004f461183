"""What of a Python text is code: names, numbers, strings and signs; docstrings and comments are
none."""

import ast
import io
import tokenize


def lines_of_tokens(text: str) -> list[int]:
    """The line of every token of code, in order."""
    kinds = (tokenize.NAME, tokenize.NUMBER, tokenize.STRING, tokenize.OP)
    documented = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    return [
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type in kinds and token.start[0] not in documented
    ]
