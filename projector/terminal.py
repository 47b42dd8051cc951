"""Text that is safe to print on a terminal.

Publishers choose much of what the projector prints: an endpoint id may hold escape sequences.
"""


def visible(text: str) -> str:
    """Return a text with each unprintable character replaced by its Python escape."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def visible_lines(text: str) -> str:
    """Return the same, keeping line breaks."""
    return "\n".join(map(visible, text.split("\n")))
