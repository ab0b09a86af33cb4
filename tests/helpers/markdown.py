"""Parses Markdown pages: code blocks, inline code, shell commands and links."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from markdown_it import MarkdownIt  # a dependency of rich
from markdown_it.token import Token

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "README.md"
PAGES = (README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))

_SHELL_OPERATORS = "();<>|&"


def code_blocks(page: Path, language: str) -> dict[str, str]:
    """The fenced blocks of a language, by "page:line"."""
    return {
        f"{page.name}:{token.map[0] + 1}": token.content
        for token in _tokens(page)
        if token.type == "fence" and token.info.strip() == language and token.map
    }


def inline_code(page: Path) -> list[str]:
    return [token.content for token in _tokens(page) if token.type == "code_inline"]


def links(page: Path) -> list[str]:
    """Targets of links and images."""
    targets = (token.attrGet("href") or token.attrGet("src") for token in _tokens(page))
    return [str(target) for target in targets if target]


def shell_commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of every command in shell blocks, without comments."""
    for block in code_blocks(page, "sh").values():
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars=_SHELL_OPERATORS)
            command: list[str] = []
            for word in lexer:
                if set(word) <= set(_SHELL_OPERATORS):
                    yield command
                    command = []
                else:
                    command.append(word)
            yield command


def _tokens(page: Path) -> Iterator[Token]:
    parser = MarkdownIt().enable("table")
    for token in parser.parse(page.read_text(encoding="utf-8")):
        yield token
        yield from token.children or ()
