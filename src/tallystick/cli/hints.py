"""Commands in hints: with the options of the command that tells them, so that they mean the same when pasted.

Not with its --dsn, which may hold a password.
"""

from __future__ import annotations

import re

# Up to a punctuation mark or the next command: no hint goes on in words right behind a command.
_COMMAND = re.compile(r"\btally (?!demo\b|init\b|bench\b)([a-z]+)(?: [^\s,;)&]*[^\s,;)&.])*")
_BY_DECLARATION = ("plan", "install", "redefine", "rename")
"""These work on an application alone; whoever goes by --schema has to name it."""
_ANY_APP = " --app MODULE:REGISTRY"


def repeated(text: str, options: str) -> str:
    """A text whose commands have the options; as it is, if they are there already.

    Args:
        options: --app or --schema with a value and a leading blank, or nothing.
    """
    if not options or options in text:
        return text

    def with_options(found: re.Match[str]) -> str:
        if "--app" in found[0]:
            return found[0]
        lacks_app = found[1] in _BY_DECLARATION and "--abort" not in found[0] and "--schema" in options
        return found[0] + (_ANY_APP if lacks_app else options)

    return _COMMAND.sub(with_options, text)
