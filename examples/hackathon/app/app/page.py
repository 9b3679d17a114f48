"""The page: ideas by votes, rendered on the server. No script, no asset from elsewhere."""

import base64
import hashlib
from collections.abc import Sequence
from html import escape

from .ideas import Idea, Stats

PAGE_SIZE = 20
_EXCERPT = 240

_STYLE = """
:root { color-scheme: light dark; --paper: #f6f5f1; --card: #ffffff; --ink: #1d1f24; --soft: #646a76;
  --line: #e3e1da; --accent: #b4431f; --tint: #fbeee8; }
@media (prefers-color-scheme: dark) { :root { --paper: #15171b; --card: #1d2026; --ink: #eceae4;
  --soft: #9aa1ad; --line: #2c3038; --accent: #ff9a6e; --tint: #33241d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main, header, footer { max-width: 54rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 3rem; padding-bottom: 1.5rem; }
h1 { margin: 0 0 1.1rem; font-size: 2.1rem; line-height: 1.15; letter-spacing: -0.02em;
  overflow-wrap: anywhere; }
dl { display: flex; flex-wrap: wrap; gap: 0.5rem 2.25rem; margin: 0; }
dl div { display: flex; flex-direction: column-reverse; }
dt { color: var(--soft); font-size: 0.8rem; }
dd { margin: 0; font-size: 1.3rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.held { margin: 1.25rem 0 0; padding: 0.6rem 0.9rem; border-radius: 0.5rem; background: var(--tint);
  color: var(--accent); font-size: 0.92rem; }
ol { list-style: none; margin: 0; padding: 0; display: grid; gap: 0.75rem; }
li { display: grid; grid-template-columns: 4.25rem minmax(0, 1fr); gap: 1rem; background: var(--card);
  border: 1px solid var(--line); border-radius: 0.75rem; padding: 1rem 1.1rem 1rem 0.9rem; }
.votes { text-align: center; align-self: start; padding: 0.4rem 0; border-radius: 0.5rem;
  background: var(--tint); color: var(--accent); font-variant-numeric: tabular-nums; }
.votes b { display: block; font-size: 1.2rem; line-height: 1.2; }
.votes span { font-size: 0.72rem; }
.votes img { display: block; margin: 0.35rem auto 0.1rem; border-radius: 0.2rem; }
h2 { margin: 0; font-size: 1.05rem; line-height: 1.35; overflow-wrap: anywhere; }
p { margin: 0.3rem 0 0.55rem; color: var(--ink); opacity: 0.86; overflow-wrap: anywhere; }
small { display: flex; flex-wrap: wrap; gap: 0.15rem 1rem; color: var(--soft); font-size: 0.82rem; }
code { font: 0.95em ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
a { color: var(--accent); text-underline-offset: 0.15em; }
nav { display: flex; justify-content: space-between; align-items: baseline; gap: 1rem;
  padding: 1.5rem 0 0.5rem;  font-variant-numeric: tabular-nums; }
nav span { color: var(--soft); }
footer { padding-top: 1rem; padding-bottom: 3rem; color: var(--soft); font-size: 0.85rem; }
.empty { border: 1px dashed var(--line); border-radius: 0.75rem; padding: 2.5rem 1.25rem; text-align: center;
  color: var(--soft); }
.empty p { color: inherit; }
@media (max-width: 32rem) { header { padding-top: 1.75rem; } h1 { font-size: 1.6rem; }
  li { grid-template-columns: 3.25rem minmax(0, 1fr); gap: 0.75rem; } }
"""

_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
PAGE_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src 'self' data:; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def rendered(*, title: str, ideas: Sequence[Idea], stats: Stats, number: int, quiesced: bool) -> str:
    """The whole page; ``number`` counts pages from 1. All that users wrote is escaped."""
    last = max(1, -(-stats.count // PAGE_SIZE))
    held = (
        '<p class="held" role="status">Writes are held while a copy is made. Reading goes on.</p>' if quiesced else ""
    )
    if ideas:
        listed = "<ol>" + "".join(_card(idea) for idea in ideas) + "</ol>"
    elif stats.count:
        listed = f'<div class="empty"><p>No such page. <a href="/?page={last}">Go to the last one</a>.</p></div>'
    else:
        listed = '<div class="empty"><p>No ideas yet. Send the first to <code>POST /api/ideas</code>.</p></div>'
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><style>{_STYLE}</style></head><body>'
        f"<header><h1>{escape(title)}</h1><dl>{_figure('ideas', f'{stats.count:,}')}"
        f"{_figure('votes', f'{stats.votes:,}')}{_figure('documents', f'{stats.documents:,}')}"
        f"{_figure('in documents', size(stats.bytes))}</dl>{held}</header>"
        f"<main>{listed}{_steps(number, last)}</main>"
        "<footer>Ideas are rows in PostgreSQL, their documents objects in S3.</footer></body></html>"
    )


def size(count: int) -> str:
    """A number of bytes for people: ``812 B``, ``33.6 MiB``."""
    if count < 1024:
        return f"{count} B"
    units = ("KiB", "MiB", "GiB", "TiB")
    power = min((count.bit_length() - 1) // 10, len(units))
    return f"{count / 1024**power:.1f} {units[power - 1]}"


def _figure(name: str, value: str) -> str:
    return f"<div><dt>{name}</dt><dd>{value}</dd></div>"


def _card(idea: Idea) -> str:
    excerpt = " ".join(idea.text.split())
    if len(excerpt) > _EXCERPT:
        excerpt = excerpt[:_EXCERPT].rstrip() + "…"
    text = f"<p>{escape(excerpt)}</p>" if excerpt else ""
    unit = "vote" if idea.votes == 1 else "votes"
    picture = f'<img src="/api/ideas/{idea.id}/thumbnail" alt="" loading="lazy" width="48" height="60">'
    return (
        f'<li><div class="votes"><b>{idea.votes:,}</b><span>{unit}</span>{picture}</div>'
        f"<div><h2>{escape(idea.title)}</h2>{text}<small><span>by {escape(idea.author)}</span>"
        f'<a href="/api/ideas/{idea.id}/document">document, {size(idea.doc_size)}</a>'
        f'<code title="SHA-256 of the document">{idea.doc_digest[:12]}</code></small></div></li>'
    )


def _steps(number: int, last: int) -> str:
    if last == 1:
        return ""
    before = f'<a rel="prev" href="/?page={min(number - 1, last)}">Previous</a>' if number > 1 else "<span></span>"
    after = f'<a rel="next" href="/?page={number + 1}">Next</a>' if number < last else "<span></span>"
    return f'<nav aria-label="Pages">{before}<span>Page {number:,} of {last:,}</span>{after}</nav>'
