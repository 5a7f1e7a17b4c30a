"""Text in figures: on one line, as long as there is room, in letters that some font has."""

from __future__ import annotations

from functools import lru_cache

from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.ft2font import FT2Font

__all__ = ["families", "fitted", "printable", "text_width", "wrapped"]

# Fonts with letters that matplotlib's own lacks, where somebody installed them.
OTHERS = (
    "Noto Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans Devanagari",
    "WenQuanYi Zen Hei", "Droid Sans Fallback", "PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo",
    "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Nirmala UI", "Arial Unicode MS",
)  # fmt: skip
POINTS_PER_INCH = 72
TEXT_POINTS = 100
FIXED_POINT = 65536  # one, in FreeType's numbers
HINTED = 1.04  # at 100 to 200 dots per inch it makes a line wider by up to so much


@lru_cache(maxsize=1)
def families() -> list[str]:
    """Font families to draw text with, in the order in which a letter is looked for."""
    installed = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in OTHERS if name in installed)]


@lru_cache(maxsize=1)
def _fonts() -> list[tuple[FT2Font, set[int]]]:
    fonts = [get_font(findfont(FontProperties(family=[name]))) for name in families()]
    return [(font, set(font.get_charmap())) for font in fonts]


@lru_cache(maxsize=4096)
def _advance(letter: str) -> float | None:
    """Width of a letter in a font of one point, in points; None where no font has it."""
    for font, letters in _fonts():
        if ord(letter) in letters:
            font.set_size(TEXT_POINTS, POINTS_PER_INCH)
            return float(font.load_char(ord(letter)).linearHoriAdvance) / FIXED_POINT / TEXT_POINTS
    return None


def printable(text: str) -> str:
    r"""Bring a text to one line; letters that no font has are shown as code points.

    Examples
    --------
    >>> printable("tabby,\n tabby\tcat \U00013000")
    'tabby, tabby cat U+13000'
    """
    line = " ".join(text.split())
    kept = (c for c in line if c.isprintable())
    return "".join(f"U+{ord(c):04X}" if _advance(c) is None else c for c in kept)


def text_width(text: str, points: float) -> float:
    """Width of a line of printable text in inches, in a font of so many points; rather too much than too little.

    Examples
    --------
    >>> text_width("", 8), 0.5 < text_width("ten digits", 9) < 0.8
    (0.0, True)
    """
    return sum(_advance(letter) or 0.0 for letter in text) * HINTED * points / POINTS_PER_INCH


def fitted(text: str, points: float, inches: float) -> str:
    """Shorten a printable text to a width.

    Examples
    --------
    >>> fitted("European fire salamander", 9, 1.05)
    'European fire…'
    """
    if text_width(text, points) <= inches:
        return text
    low, high = 0, len(text)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if text_width(f"{text[:middle]}…", points) <= inches else (low, middle)
    return f"{text[:low].rstrip()}…"


def wrapped(text: str, points: float, inches: float) -> list[str]:
    """Break a printable text between words into lines of a width; a word that is longer is shortened.

    Examples
    --------
    >>> wrapped("The box around the largest region", 9, 1.2)
    ['The box around', 'the largest region']
    """
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, points) <= inches:
            lines[-1] = longer
        else:
            lines.append(fitted(word, points, inches))
    return lines
