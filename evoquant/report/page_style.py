"""The page's style: one column, readable on a phone, on paper and in the dark, at a contrast of at least 4.5 to 1.

In the dark the figures stay on white: a width has the same colour everywhere, and those are made for paper.
"""

from __future__ import annotations

STYLE = """
:root { color-scheme: light; --paper: #ffffff; --ink: #1f2328; --quiet: #57606a; --line: #d0d7de; --back: #f6f8fa;
  --edge: #8c959f; --link: #0550ae; --pressed: #0550ae; --good: #1a7f37; --good-back: #eefaf1; --warning: #b3261e;
  --warning-back: #fdf0ef; --info-back: #eef4fc; }
@media screen and (prefers-color-scheme: dark) {
  :root { color-scheme: dark; --paper: #12161c; --ink: #e6edf3; --quiet: #9ea7b3; --line: #3b444f; --back: #1d232b;
    --edge: #6e7681; --link: #79b8ff; --pressed: #1158b7; --good: #3fb950; --good-back: #12261a; --warning: #ff7b72;
    --warning-back: #33191a; --info-back: #14243a; }
  .plot { background: #ffffff; border-radius: 8px; overflow: hidden; }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 0 1rem 3rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 1.5rem 0 .25rem; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 2.5rem 0 .5rem; padding-bottom: .25rem;
  border-bottom: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .5rem; }
p { margin: .5rem 0; }
a { color: var(--link); }
.note, figcaption .note { color: var(--quiet); font-size: .9rem; }
.lead { font-size: 1.15rem; }
.champion { font-size: 1.05rem; }
.good, .info, .warning { padding: .5rem .75rem; border-left: 4px solid; border-radius: 4px; }
.good { border-color: var(--good); background: var(--good-back); }
.warning { border-color: var(--warning); background: var(--warning-back); }
.info { border-color: var(--link); background: var(--info-back); }
.skip { position: absolute; left: -99rem; }
.skip:focus { left: 1rem; top: .5rem; background: var(--paper); padding: .25rem .5rem; z-index: 2; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: .9em; }
code { background: var(--back); padding: .1em .3em; border-radius: 4px; }
pre { background: var(--back); padding: .75rem; border-radius: 6px; overflow-x: auto; line-height: 1.45; }
pre code { background: none; padding: 0; }
dl { margin: 1rem 0; }
dt { color: var(--quiet); font-size: .85rem; }
dd { margin: 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(8.8rem, 100%), 1fr)); gap: .75rem; }
.cards > div { border: 1px solid var(--line); border-radius: 8px; padding: .6rem .75rem; }
.cards dd { font-size: 1.2rem; font-weight: 600; line-height: 1.35; }
.cards dd.more { font-size: .88rem; font-weight: 400; }
.facts > div { display: grid; grid-template-columns: minmax(8rem, 16rem) 1fr; gap: .25rem 1rem; padding: .2rem 0; }
.facts dd { min-width: 0; overflow-wrap: anywhere; }
figure { margin: .5rem 0; }
figcaption { font-size: .95rem; }
figcaption ol { padding-left: 1.5rem; }
.plot { width: 100%; min-height: 120px; }
.controls { display: flex; flex-wrap: wrap; gap: .4rem .6rem; align-items: center; margin: .5rem 0; font-size: .95rem; }
.controls input { flex: 1 1 10rem; min-width: 8rem; max-width: 24rem; height: 2rem; accent-color: #0072b2; }
.controls output { min-width: 8.5rem; font-variant-numeric: tabular-nums; }
button { font: inherit; color: var(--ink); background: var(--back); border: 1px solid var(--edge); border-radius: 6px;
  padding: .25rem .75rem; min-height: 2.25rem; cursor: pointer; }
button[aria-pressed="true"] { background: var(--pressed); border-color: var(--pressed); color: #ffffff; }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.scroll { overflow-x: auto; margin: 1rem 0 .25rem; max-height: 36rem; overflow-y: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .25rem 0; font-size: 1rem; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  overflow-wrap: normal; max-width: 34rem; }
thead th { background: var(--back); position: sticky; top: 0; }
tbody th { font-weight: 400; }
td.number, th.number { text-align: right; white-space: nowrap; }
details { margin: .5rem 0; }
summary { cursor: pointer; color: var(--link); padding: .35rem 0; }
.tree, .tree ul { list-style: none; margin: 0; padding-left: 1.1rem; border-left: 1px solid var(--edge); }
.tree { border: 0; padding-left: 0; overflow-x: auto; }
.tree li { padding: .1rem 0 .1rem .4rem; }
.tree span { background: var(--back); border: 1px solid var(--line); border-radius: 4px; padding: 0 .4rem;
  font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .88rem; }
footer { margin-top: 3rem; border-top: 1px solid var(--line); }
@media (max-width: 40rem) {
  body { padding: 0 .75rem 2rem; }
  h1 { font-size: 1.35rem; }
  .facts > div { grid-template-columns: 1fr; gap: 0; }
  td, th { max-width: 18rem; }
}
@media print {
  @page { margin: 15mm; }
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  .controls, .skip, .modebar { display: none !important; }
  h2, h3, caption { break-after: avoid; }
  figure, .cards > div, pre, tr, .good, .info, .warning { break-inside: avoid; }
  details pre { break-inside: auto; }
  table:not(:has(tbody tr:nth-child(16))) { break-inside: avoid; }
  thead { break-after: avoid; }
  tbody tr:nth-child(-n+3), tbody tr:nth-last-child(-n+2) { break-before: avoid; }
  .scroll { overflow: visible; max-height: none; }
  table { font-size: 7.5pt; width: 100%; }
  th, td { padding: 1pt 3pt; max-width: none; overflow-wrap: anywhere; }
  td:not(.number), tbody th { min-width: 11ch; }
  td.number, th.number { white-space: normal; overflow-wrap: normal; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  thead { display: table-header-group; }
  thead th { position: static; }
  details:not([open]) { display: none; }
  a { color: inherit; text-decoration: none; }
  .good, .info, .warning, code, pre, thead th { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
"""
