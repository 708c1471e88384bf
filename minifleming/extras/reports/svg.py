"""Elements of SVG pictures: text, lines, and a light card behind them, readable on any page."""

from __future__ import annotations

from html import escape

CARD, EDGE, INK, SOFT = "#f6f8fa", "#8c959f", "#1f2328", "#57606a"
FONT = "font-family='Helvetica, Arial, sans-serif'"


def text(x: float, y: float, words: str, size: int = 13, color: str = INK, anchor: str = "start",
         extra: str = "") -> str:
    return (f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{color}" '
            f'text-anchor="{anchor}" {FONT} {extra}>{escape(words)}</text>')


def card(width: int, height: int, label: str, body: list[str]) -> str:
    """A whole SVG document: `body` on a rounded light card."""
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" aria-label="{escape(label)}">')
    arrow = ('<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
             f'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="{SOFT}"/>'
             '</marker></defs>')
    back = (f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="10" '
            f'fill="{CARD}" stroke="{EDGE}"/>')
    return "\n".join([head, arrow, back, *body, "</svg>"]) + "\n"


def line(points: list[tuple[float, float]], color: str, width: float, extra: str = "") -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return (f'<polyline points="{path}" fill="none" stroke="{color}" '
            f'stroke-width="{width:g}" {extra}/>')
