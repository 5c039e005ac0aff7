"""The desk's page: fixed bytes that a strict policy allows by their hashes; all that changes comes as events."""

from __future__ import annotations

import base64
import hashlib

from kit.look import STYLE
from paper.watch.script import SCRIPT

_OWN_STYLE = """
:root { --bad: #c02618; --warn: #96690a; --good: #00755f; }
@media screen and (prefers-color-scheme: dark) { :root { --bad: #ff7466; --warn: #e0b341; --good: #3cc7a6; } }
.bar-top {
  position: sticky; top: 0; z-index: 3; background: var(--back); border-bottom: 1px solid var(--rule);
}
.bar-top > div {
  max-width: 1120px; margin: 0 auto; padding: 10px clamp(14px, 3vw, 32px);
  display: flex; align-items: center; gap: 12px;
}
.bar-top h1 { font-size: 1.2rem; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.badge {
  padding: 1px 9px; border-radius: 99px; font-size: .78rem; font-weight: 680; letter-spacing: .03em; color: var(--good);
  box-shadow: inset 0 0 0 1.5px currentColor; white-space: nowrap;
}
.REDUCING, .warning { color: var(--warn); }
.HALTED, .critical { color: var(--bad); }
.info { color: var(--soft); }
.buttons { margin-left: auto; display: flex; gap: 8px; flex: none; }
.push {
  font: inherit; font-size: .88rem; font-weight: 620; padding: 6px 14px; border-radius: 8px; cursor: pointer;
  border: 1px solid var(--rule); background: var(--sheet); color: inherit; min-height: 38px;
}
.push.stop { border-color: var(--bad); background: var(--bad); color: var(--sheet); }
.push:disabled { opacity: .5; cursor: default; }
.sub { color: var(--soft); font-size: .88rem; margin: 12px 0 0; max-width: none; }
.note-line { margin: 12px 0 0; padding: 9px 14px; border-radius: 8px; max-width: none; border: 1px solid currentColor; }
#stale { color: var(--warn); }
.stale .live { opacity: .5; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(430px, 100%), 1fr)); gap: 0 16px; }
.pair > * { min-width: 0; }
figure { margin: 1rem 0 0; }
.figures { grid-template-columns: repeat(auto-fill, minmax(min(160px, 42%), 1fr)); }
.good { color: var(--good); }
.bad { color: var(--bad); }
.axes { margin: 14px 4px 28px 0; height: clamp(210px, 26vw, 300px); }
.band { fill: var(--s2); opacity: .16; }
.a0 { --c: var(--s0); } .a1 { --c: var(--s1); } .a2 { --c: var(--s2); --dash: 6 3; }
.keys { display: flex; flex-wrap: wrap; gap: 2px 16px; font-size: .84rem; }
.keys span { display: inline-flex; align-items: center; gap: 7px; }
.keys svg { width: 22px; height: 12px; }
.keys path { stroke: var(--c); stroke-width: 2.4px; stroke-dasharray: var(--dash, none); }
.keys rect { fill: var(--s2); opacity: .25; }
.limit { margin: 0 0 11px; font-size: .86rem; }
.limit div { display: flex; flex-wrap: wrap; gap: 0 10px; font-variant-numeric: tabular-nums; }
.limit div span { margin-left: auto; color: var(--soft); }
.track { height: 7px; border-radius: 4px; background: var(--faint); overflow: hidden; margin-top: 3px; }
.track i { display: block; height: 100%; background: var(--good); border-radius: 4px; }
.near .track i { background: var(--warn); }
.over .track i { background: var(--bad); }
.over b { color: var(--bad); }
.alerts { list-style: none; margin: 0; padding: 0; max-height: 24rem; overflow: auto; font-size: .86rem; }
.alerts li { padding: 7px 0; border-bottom: 1px solid var(--faint); }
.alerts p { margin: 0; color: var(--soft); font-size: .78rem; }
.alerts b { font-weight: 640; }
.none { color: var(--soft); font-size: .86rem; margin: 0; }
tbody th, .votes th:first-child { position: sticky; left: 0; background: var(--sheet); }
.votes thead th:first-child { z-index: 1; }
.votes th small { display: block; font-weight: 400; }
dialog {
  width: min(430px, calc(100vw - 28px)); border: 1px solid var(--rule); border-radius: 12px; padding: 20px 22px;
  background: var(--sheet); color: var(--ink);
}
dialog::backdrop { background: #0008; }
dialog h2 { margin: 0 0 .3rem; }
dialog label { display: block; font-size: .84rem; font-weight: 600; margin: 12px 0 0; }
dialog input {
  display: block; width: 100%; margin-top: 4px; padding: 9px 11px; font: inherit; font-size: 16px; color: inherit;
  background: var(--back); border: 1px solid var(--rule); border-radius: 8px;
}
dialog input:focus-visible { outline: 2px solid var(--s0); }
.secret { -webkit-text-security: disc; }
dialog .buttons { margin-top: 18px; justify-content: flex-end; }
@media (max-width: 620px) {
  .wide { display: none; }
  th, td { padding: 6px 7px; }
}
"""

_BODY = """
<div class="bar-top"><div>
  <h1 id="name">Desk</h1><span id="state" class="badge info">…</span>
  <div class="buttons"><button type="button" class="push" id="reset" hidden>Reset</button>
  <button type="button" class="push stop" id="kill">Kill</button></div>
</div></div>
<main>
<noscript><p class="note-line">This page needs its script.</p></noscript>
<p class="sub" id="about"></p>
<p class="note-line" id="stale" role="status">Connecting …</p>
<p class="note-line" id="said" role="status" hidden></p>
<p class="note-line" id="why" hidden></p>
<div class="live">
<dl class="figures" id="figures"></dl>
<figure><figcaption><h3>Equity</h3></figcaption>
  <div class="keys">
    <span class="a0"><svg aria-hidden="true"><path d="M1 6h20"/></svg>Desk</span>
    <span class="a1"><svg aria-hidden="true"><path d="M1 6h20"/></svg>Equal weight</span>
    <span class="a2"><svg aria-hidden="true"><path d="M1 6h20"/></svg>Backtest</span>
    <span><svg aria-hidden="true"><rect width="22" height="12"/></svg>Its range</span>
  </div>
  <div class="plot axes" id="plot"></div>
</figure>
<div class="pair">
  <figure><figcaption><h3>Limits</h3></figcaption><div id="limits"></div></figure>
  <figure><figcaption><h3>Alerts</h3></figcaption><ul class="alerts" id="alerts" tabindex="0"></ul></figure>
</div>
<figure><figcaption><h3>Positions</h3></figcaption>
  <div class="scroll" tabindex="0" role="region" aria-label="Positions"><table>
    <thead><tr><th scope="col">Symbol</th><th scope="col" class="num">Weight</th><th scope="col" class="num">Target</th>
    <th scope="col" class="num wide">Value</th><th scope="col" class="num">Profit</th>
    <th scope="col" class="num wide">Quantity</th><th scope="col" class="num wide">Price</th></tr></thead>
    <tbody id="positions"></tbody></table></div>
</figure>
<figure><figcaption><h3>Votes</h3><p id="apart"></p></figcaption>
  <div class="scroll" tabindex="0" role="region" aria-label="Votes"><table class="votes">
    <thead><tr id="members"></tr></thead><tbody id="votes"></tbody></table></div>
</figure>
<figure><figcaption><h3>Orders</h3></figcaption>
  <div class="scroll" tabindex="0" role="region" aria-label="Orders"><table>
    <thead><tr><th scope="col">Symbol</th><th scope="col">Side</th><th scope="col" class="num">Quantity</th>
    <th scope="col" class="num wide">Filled</th><th scope="col">Status</th><th scope="col" class="num wide">Price</th>
    <th scope="col" class="wide">At</th><th scope="col" class="wide">Id</th></tr></thead>
    <tbody id="orders"></tbody></table></div>
</figure>
</div>
</main>
<footer><p id="updated"></p></footer>
<dialog id="ask" aria-labelledby="asked"><form>
  <h2 id="asked"></h2><p id="meaning"></p>
  <label>Reason<input id="reason" maxlength="500" autocomplete="off"></label>
  <label>Token<input id="token" class="secret" autocomplete="off" autocapitalize="off" spellcheck="false" required>
  </label>
  <p class="note-line bad" id="refused" role="alert" hidden></p>
  <div class="buttons"><button type="button" class="push" id="leave">Cancel</button>
  <button type="submit" class="push stop" id="do"></button></div>
</form></dialog>
"""


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_style = STYLE + _OWN_STYLE
POLICY = (
    f"default-src 'none'; script-src {_hash(SCRIPT)}; style-src {_hash(_style)}; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE = (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    '<title>Desk</title>\n<link rel="icon" href="data:,">\n'
    f"<style>{_style}</style>\n</head>\n<body>{_BODY}<script>{SCRIPT}</script>\n</body>\n</html>\n"
)
