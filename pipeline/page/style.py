"""The page's one style sheet: system fonts, light or dark as the reader's system is, no width of its own."""

STYLE = """
:root { color-scheme: light dark; --page: #fbfbf9; --ink: #1c2024; --dim: #5b636b; --line: #d5d9dc; --card: #ffffff;
  --link: #0b57a4; --good: #1a6b3a; --bad: #a3271f; --heat: 28, 104, 178; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14171a; --ink: #e6e8ea; --dim: #9ba4ac; --line: #343a40; --card: #1d2125; --link: #86bdf5;
    --good: #74cf98; --bad: #ff958c; --heat: 96, 165, 230; }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; scroll-behavior: auto; }
body { margin: 0; background: var(--page); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
header, nav, main, footer { max-width: 76rem; margin: 0 auto; padding: 0 1rem; }
h1 { margin: 1.5rem 0 0.5rem; font-size: 1.6rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 0.25rem; padding-top: 0.75rem; border-top: 1px solid var(--line); font-size: 1.25rem; }
h3 { margin: 1.5rem 0 0.5rem; font-size: 1rem; }
p { margin: 0.25rem 0 0.75rem; max-width: 48rem; }
a { color: var(--link); }
a:focus-visible, .scroll:focus-visible, summary:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.25rem 1rem; margin: 0.5rem 0; padding: 0; list-style: none; }
code { font: 0.85em ui-monospace, monospace; overflow-wrap: anywhere; }
.dim { color: var(--dim); }
.good { color: var(--good); font-weight: 600; }
.bad { color: var(--bad); font-weight: 600; }
.scroll { overflow-x: auto; margin: 0.5rem 0 1rem; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
caption { padding: 0 0 0.25rem; text-align: left; font-weight: 600; }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
thead th { vertical-align: bottom; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--page); }
td.word, #reasons thead th:nth-child(2) { text-align: left; }
tr.total > * { border-top: 2px solid var(--line); font-weight: 600; }
tr.published > * { color: var(--dim); }
td small { display: block; color: var(--dim); }
.heat1 { background: rgba(var(--heat), 0.08); } .heat2 { background: rgba(var(--heat), 0.18); }
.heat3 { background: rgba(var(--heat), 0.30); } .heat4 { background: rgba(var(--heat), 0.45); }
ul.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: 0.75rem; margin: 0;
  padding: 0; list-style: none; }
ul.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1rem; margin: 0;
  padding: 0; list-style: none; }
ul.pairs > li { min-width: 0; padding: 0.5rem; border: 1px solid var(--line); border-radius: 6px; }
ul.pairs > li > p { margin: 0 0 0.5rem; font-size: 0.875rem; font-weight: 600; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 0.5rem; }
figure { margin: 0; min-width: 0; height: 100%; padding: 0.5rem; border: 1px solid var(--line); border-radius: 6px;
  background: var(--card); font-size: 0.8rem; line-height: 1.35; overflow: hidden; }
figure.stays { border: 2px solid var(--good); }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto 0.5rem; }
.gone { display: flex; align-items: center; justify-content: center; min-height: 7rem; margin: 0 0 0.5rem;
  padding: 0.5rem; border: 1px dashed var(--dim); color: var(--dim); text-align: center; overflow-wrap: anywhere; }
figcaption > * { display: block; margin: 0 0 0.25rem; overflow-wrap: anywhere; }
figcaption code { font-size: 0.7rem; color: var(--dim); }
@media (max-width: 30rem) {
  ul.cards { grid-template-columns: 1fr 1fr; }
  ul.pairs { grid-template-columns: 1fr; }
  th:first-child { max-width: 13rem; white-space: normal; overflow-wrap: break-word; }
}
footer { margin-top: 3rem; padding-bottom: 2rem; }
"""
