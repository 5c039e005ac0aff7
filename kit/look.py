"""How a page looks and what its script does. Both are constants: nothing of a report goes into them."""

STYLE = """
:root {
  color-scheme: light dark;
  --back: #f7f7f5; --sheet: #fff; --ink: #1b1f24; --soft: #5d6570; --rule: #e3e5e8; --faint: #eef0f2;
  --s0: #0a66b0; --s1: #d1530c; --s2: #00806a; --s3: #9c4fa5; --s4: #3b9ddd; --s5: #a87600; --s6: #6a707a;
  --s7: #7b3f1c; --hot: #0a66b0; --cold: #d1530c; --on: #fff;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --back: #101317; --sheet: #171b20; --ink: #e8eaed; --soft: #9ba4af; --rule: #2c333b; --faint: #20262d;
    --s0: #5aaef5; --s1: #f5935a; --s2: #3cc7a6; --s3: #cf8fd8; --s4: #a6d5f7; --s5: #e0b341; --s6: #a9b0ba;
    --s7: #c98f6b; --hot: #3d8fda; --cold: #e0763a;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0; background: var(--back); color: var(--ink); overflow-wrap: anywhere;
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main, body > header, body > footer { max-width: 1120px; margin: 0 auto; padding: 0 clamp(14px, 3vw, 32px); }
body > header { padding-top: clamp(28px, 5vw, 56px); padding-bottom: 12px; }
h1 { font-size: clamp(1.6rem, 4.2vw, 2.3rem); line-height: 1.15; letter-spacing: -.02em; margin: 0; font-weight: 680; }
h2 { font-size: 1.25rem; line-height: 1.3; letter-spacing: -.01em; margin: 2.6rem 0 .3rem; font-weight: 650; }
h3 { font-size: .98rem; line-height: 1.4; margin: 0; font-weight: 620; }
h3 small { color: var(--soft); font-weight: 400; }
p, ul { margin: .3rem 0 .9rem; max-width: 46rem; }
ul { padding-left: 1.2rem; }
header p { color: var(--soft); font-size: 1.05rem; margin: .5rem 0 0; }
.figures {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(190px, 42%), 1fr)); gap: 1px; margin: 1rem 0;
  background: var(--sheet); border: 1px solid var(--rule); border-radius: 10px; overflow: hidden;
}
.figures div { padding: 13px clamp(12px, 2vw, 20px) 12px; box-shadow: 0 0 0 1px var(--rule); }
.figures dt { color: var(--soft); font-size: .8rem; }
.figures dd { margin: 0; font-variant-numeric: tabular-nums; }
.figures .value { font-size: clamp(1.15rem, 2.4vw, 1.42rem); line-height: 1.35; font-weight: 620; }
.figures .note { color: var(--soft); font-size: .78rem; line-height: 1.35; }
figure {
  margin: 1rem 0; padding: 16px clamp(12px, 2vw, 22px) 18px; background: var(--sheet);
  border: 1px solid var(--rule); border-radius: 10px;
}
figcaption { margin-bottom: 10px; }
figcaption p { color: var(--soft); font-size: .84rem; line-height: 1.45; margin: 2px 0 0; max-width: 52rem; }
.plot { position: relative; }
.plot svg { display: block; width: 100%; }
.axes { margin: 14px 6px 28px 0; height: clamp(200px, 24vw, 280px); }
.axes.two { margin-bottom: 42px; }
.axes svg { height: 100%; overflow: visible; }
.axes > svg { touch-action: pan-y; cursor: crosshair; }
.axes > svg:focus-visible, button:focus-visible { outline: 2px solid var(--s0); outline-offset: 3px; }
.axes > svg:focus:not(:focus-visible) { outline: none; }
.grid line { stroke: var(--rule); shape-rendering: crispEdges; }
.grid .mark { stroke: var(--soft); transform: translateY(2px); }
svg text { font-size: 11px; fill: var(--soft); font-variant-numeric: tabular-nums; }
.ticks text, .heat text { text-anchor: middle; }
.ticks .y, .ticks .last, .heat .row { text-anchor: end; }
.ticks .under { fill: var(--ink); font-weight: 600; }
.heat .upright { text-anchor: start; }
.heat .cells text { fill: var(--ink); }
.heat .cells .strong { fill: var(--on); }
.hot { fill: var(--hot); } .cold { fill: var(--cold); }
.line {
  fill: none; stroke: var(--c); stroke-width: 1.6px; stroke-dasharray: var(--dash, none);
  stroke-linejoin: round; stroke-linecap: round; vector-effect: non-scaling-stroke;
}
.area { fill: var(--c); opacity: .16; }
.bar { fill: var(--c); }
.off { display: none; }
.cursor { pointer-events: none; }
.cursor line { stroke: var(--soft); stroke-dasharray: 3 3; }
.cursor circle { fill: var(--c); stroke: var(--sheet); stroke-width: 2px; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; margin: 0 0 4px -4px; }
.legend button {
  display: inline-flex; align-items: center; gap: 7px; padding: 3px 4px; border: 0; background: none;
  color: inherit; font: inherit; font-size: .84rem; cursor: pointer; border-radius: 4px;
}
.legend svg { width: 22px; height: 12px; flex: none; }
.legend path { stroke: var(--c); stroke-width: 2.4px; stroke-dasharray: var(--dash, none); }
.legend [aria-pressed=false] { color: var(--soft); text-decoration: line-through; }
.legend [aria-pressed=false] path { stroke: var(--rule); }
.key { display: flex; align-items: center; gap: 8px; color: var(--soft); font-size: .78rem; margin-bottom: 10px; }
.key i {
  width: 140px; height: 9px; border-radius: 5px; border: 1px solid var(--rule);
  background: linear-gradient(to right, var(--cold), var(--sheet), var(--hot));
}
.tip {
  position: absolute; z-index: 2; pointer-events: none; max-width: 260px; padding: 7px 10px; border-radius: 7px;
  background: var(--sheet); border: 1px solid var(--rule); box-shadow: 0 4px 16px #0003; font-size: .8rem;
  line-height: 1.5; font-variant-numeric: tabular-nums; white-space: nowrap;
}
.tip b { display: block; font-weight: 620; }
.tip div { display: flex; align-items: center; gap: 8px; }
.tip i { width: 9px; height: 9px; border-radius: 50%; background: var(--c); flex: none; }
.tip span { overflow: hidden; text-overflow: ellipsis; color: var(--soft); }
.tip em { margin-left: auto; padding-left: 12px; font-style: normal; }
.scroll { overflow: auto; max-width: 100%; }
.scroll:has(table) { max-height: 32rem; margin: 0 -6px; }
table { border-collapse: collapse; width: 100%; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 10px; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--faint); }
td { overflow-wrap: normal; }
thead th {
  position: sticky; top: 0; background: var(--sheet); color: var(--soft); font-weight: 600;
  box-shadow: inset 0 -1px var(--rule);
}
tbody th { font-weight: 600; }
tbody tr:hover > * { background: var(--faint); }
.num { text-align: right; }
th button { all: unset; cursor: pointer; }
th button:focus-visible { outline: 2px solid var(--s0); border-radius: 3px; }
th button::after { content: "↕"; opacity: .35; padding-left: 5px; }
th[aria-sort=ascending] button::after { content: "↑"; opacity: 1; }
th[aria-sort=descending] button::after { content: "↓"; opacity: 1; }
body > footer { color: var(--soft); font-size: .82rem; padding-top: 2.4rem; padding-bottom: 3rem; }
footer dl {
  display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: 2px 18px; margin: 0;
  padding-top: 14px; border-top: 1px solid var(--rule);
}
footer dd { margin: 0; color: var(--ink); }
@media print {
  body { background: #fff; font-size: 11px; }
  figure, .figures { break-inside: avoid; }
  figure:has(table) { break-inside: auto; }
  .scroll, .scroll:has(table) { overflow: visible; max-height: none; }
  .tip, .cursor { display: none; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""

# `data-ready` and `data-error` on <html> say whether the script ran, to tests and to people who look.
SCRIPT = """
"use strict";
(() => {
  const root = document.documentElement;
  addEventListener("error", event => { root.dataset.error = event.message; });
  addEventListener("securitypolicyviolation", event => { root.dataset.error = "forbidden: " + event.blockedURI; });

  const make = (tag, parent, text = "") => {
    const svg = parent instanceof SVGElement;
    const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    node.textContent = text;
    return parent.appendChild(node);
  };
  const number = (value, unit, digits = 5) => {
    if (value === null) return "–";
    const plain = () => value.toLocaleString("en", { maximumSignificantDigits: digits });
    const text = unit === "%" ? (100 * value).toFixed(2) : plain();
    return text.replace("-", "−") + (unit && " " + unit);
  };
  const moment = (x, digits) => {
    if (typeof x === "string") return x;
    if (!digits) return number(x, "", 15);
    return new Date(1000 * x).toISOString().slice(0, digits).replace("T", " ") + (digits > 10 ? " UTC" : "");
  };
  const tipOf = plot => {
    const tip = make("div", plot);
    tip.className = "tip";
    tip.hidden = true;
    return (x, y, heading, rows) => {  // x, y: shares of the plot; no rows hides the tip
      tip.hidden = !rows.length;
      tip.replaceChildren();
      make("b", tip, heading);
      for (const [style, name, value] of rows) {
        const row = make("div", tip);
        if (style) make("i", row).style.cssText = style;
        make("span", row, name);
        make("em", row, value);
      }
      const room = plot.clientWidth - tip.offsetWidth, px = x * plot.clientWidth;
      tip.style.left = Math.max(0, Math.min(room, px + 14 > room ? px - tip.offsetWidth - 14 : px + 14)) + "px";
      tip.style.top = y * plot.clientHeight + "px";
    };
  };

  const axes = (figure, plot, data) => {
    const svg = plot.querySelector("svg");
    const buttons = [...figure.querySelectorAll(".legend button")];
    const series = [...svg.querySelectorAll(".series")];
    const place = data.log ? Math.log : value => value;
    const up = value => 100 * (place(data.high) - place(value)) / (place(data.high) - place(data.low)) + "%";
    const show = tipOf(plot);
    const cursor = make("g", svg);
    cursor.classList.add("cursor", "off");
    const line = make("line", cursor);
    line.setAttribute("y2", "100%");
    const dots = data.v.map(() => make("circle", cursor));
    let at = -1;
    const hide = () => { at = -1; cursor.classList.add("off"); show(0, 0, "", []); };
    const select = index => {
      at = Math.max(0, Math.min(data.at.length - 1, index));
      const share = data.at[at] / 10000, rows = [];
      cursor.classList.remove("off");
      for (const end of ["x1", "x2"]) line.setAttribute(end, 100 * share + "%");
      data.v.forEach((values, i) => {
        const style = series[i].getAttribute("style"), value = values[at];
        const hidden = series[i].classList.contains("off");
        dots[i].classList.toggle("off", hidden || value === null);
        dots[i].setAttribute("style", style);
        dots[i].setAttribute("r", 4);
        dots[i].setAttribute("cx", 100 * share + "%");
        if (value !== null) dots[i].setAttribute("cy", up(value));
        if (!hidden) rows.push([style, data.names[i], number(value, data.unit)]);
      });
      show(share, 0, moment(data.x[at], data.digits), rows);
    };
    svg.addEventListener("pointermove", event => {
      const box = svg.getBoundingClientRect(), x = 10000 * (event.clientX - box.left) / box.width;
      let low = 0, high = data.at.length - 1;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (data.at[middle] < x) low = middle + 1; else high = middle;
      }
      select(low > 0 && x - data.at[low - 1] < data.at[low] - x ? low - 1 : low);
    });
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", event => {
      const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20 }[event.key];
      if (event.key === "Escape") hide();
      if (!step) return;
      event.preventDefault();
      select(at < 0 ? (step > 0 ? 0 : data.at.length - 1) : at + step);
    });
    buttons.forEach((button, i) => button.addEventListener("click", () => {
      const hidden = series[i].classList.toggle("off");
      button.setAttribute("aria-pressed", String(!hidden));
      if (at >= 0) select(at);
    }));
  };

  const heat = (plot, data) => {
    const svg = plot.querySelector("svg"), show = tipOf(plot);
    svg.addEventListener("pointermove", event => {
      const box = svg.getBoundingClientRect(), [left, top] = data.box;
      const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
      const c = Math.floor((x - left) / (1 - left) * data.columns.length);
      const r = Math.floor((y - top) / (1 - top) * data.rows.length);
      const inside = c >= 0 && c < data.columns.length && r >= 0 && r < data.rows.length;
      const heading = inside ? data.rows[r] + " · " + data.columns[c] : "";
      show(x, Math.min(y, .9), heading, inside ? [["", "", number(data.v[r][c], data.unit)]] : []);
    });
    svg.addEventListener("pointerleave", () => show(0, 0, "", []));
  };

  const amount = text => {
    const value = parseFloat(text.replace("−", "-").replace(/,/g, ""));
    return Number.isNaN(value) ? null : value;
  };
  const sortBy = (head, column) => {
    const body = head.closest("table").tBodies[0], numeric = head.classList.contains("num");
    const first = numeric ? "descending" : "ascending";
    const other = numeric ? "ascending" : "descending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    const sign = order === "ascending" ? 1 : -1;
    const keyed = [...body.rows].map(row => {
      const text = row.cells[column].textContent;
      return [numeric ? amount(text) : text, row];
    });
    keyed.sort(([a], [b]) => {
      if (!numeric) return sign * a.localeCompare(b);
      return a === null || b === null ? (a === null) - (b === null) : sign * (a - b);  // dashes go last
    });
    for (const cell of head.parentNode.cells) cell.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    body.append(...keyed.map(([, row]) => row));
  };

  for (const figure of document.querySelectorAll("figure.chart")) {
    const data = JSON.parse(figure.querySelector("script").textContent), plot = figure.querySelector(".plot");
    if (data.rows) heat(plot, data); else axes(figure, plot, data);
  }
  for (const head of document.querySelectorAll("thead th")) {
    const button = head.querySelector("button");
    if (button) button.addEventListener("click", () => sortBy(head, head.cellIndex));
  }
  root.dataset.ready = "yes";
})();
"""
