"""What source says of a name in plain words: the arguments of a docstring, the comments beside fields."""

from __future__ import annotations

import ast
import inspect
import io
import re
import textwrap
import tokenize

_ENTRY = re.compile(r"(?P<names>\w+(?:, \w+)*)(?: \([^)]*\))?: (?P<text>.+)")
_FOR_TOOLS = ("noqa", "pyright", "type:")


def described_arguments(docstring: str) -> dict[str, str]:
    """The arguments of a Google-style docstring, each with what is said of it, in one line and without its last stop.

    Args:
        docstring: without its indentation, as `inspect.getdoc` gives it.
    """
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", docstring, re.MULTILINE)
    entries: list[tuple[list[str], str]] = []
    for line in textwrap.dedent(section[1]).splitlines() if section else []:
        entry = _ENTRY.fullmatch(line)
        if entry:
            entries.append((entry["names"].split(", "), entry["text"]))
        elif entries and line.strip():
            entries[-1] = (entries[-1][0], f"{entries[-1][1]} {line.strip()}")
    return {name: text.strip().rstrip(".;,") for names, text in entries for name in names}


def field_comments(model: type) -> dict[str, str]:
    """The comments that stand beside the fields of a class in its source; empty where there is no source."""
    try:
        source = textwrap.dedent(inspect.getsource(model))
        definition = ast.parse(source).body[0]
    except (OSError, TypeError, SyntaxError):
        return {}
    comments = {token.start[0]: token.string.lstrip("# ").strip()
                for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type == tokenize.COMMENT}
    fields = [node for node in getattr(definition, "body", ()) if isinstance(node, ast.AnnAssign)]
    return {node.target.id: comments[node.end_lineno] for node in fields
            if isinstance(node.target, ast.Name) and node.end_lineno in comments
            and not comments[node.end_lineno].startswith(_FOR_TOOLS)}


def summary(docstring: str | None) -> str:
    """The first paragraph of a docstring in one line."""
    return " ".join(inspect.cleandoc(docstring or "").split("\n\n")[0].split())
