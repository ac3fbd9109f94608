"""Commands in hints: with the options of the command that tells them, so that they mean the same when pasted."""

from __future__ import annotations

import re

# Up to a punctuation mark or the next command: no hint goes on in words right behind a command.
_COMMAND = re.compile(r"\btally (?!demo\b|init\b|bench\b)([a-z]+)(?: [^\s,;)&]*[^\s,;)&.])*")
_BY_DECLARATION = ("plan", "install", "rename")
"""These work on an application alone, and take no --schema."""


def repeated(text: str, options: str) -> str:
    """A text whose commands have the options; as it is, if they are there already.

    Args:
        options: --app or --schema with a value and a leading blank, or nothing.
    """
    if not options or options in text:
        return text

    def with_options(found: re.Match[str]) -> str:
        is_left = "--schema" in options and found[1] in _BY_DECLARATION
        return found[0] if is_left or "--app" in found[0] else found[0] + options

    return _COMMAND.sub(with_options, text)
