"""What the desk's page runs. Texts go in as text nodes only, so that nothing that comes can become markup."""

# `data-ready` and `data-error` on <html> say whether the script ran, to tests and to people who look.
SCRIPT = """
"use strict";
(() => {
  const root = document.documentElement, at = id => document.getElementById(id);
  addEventListener("error", event => { root.dataset.error = event.message; });
  addEventListener("securitypolicyviolation", event => { root.dataset.error = "forbidden: " + event.blockedURI; });

  const make = (tag, attributes = {}, ...inside) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...inside);
    return node;
  };
  const draw = (tag, parent, attributes, text = "") => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.textContent = text;
    return parent.appendChild(node);
  };
  const typeset = text => text.replace("-", "−");
  const number = (value, digits = 2) => value === null ? "–" : typeset(
    value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }));
  const money = value => number(value, value !== null && Math.abs(value) < 1000 ? 2 : 0);
  const short = value => value === null ? "–" : typeset(value.toLocaleString("en", { maximumSignificantDigits: 6 }));
  const price = value => value !== null && Math.abs(value) < 1 ? short(value) : number(value);
  const percent = (value, digits = 1) => value === null ? "–" : number(100 * value, digits) + "\\u00a0%";
  const signed = value => value === null ? "–" : (value > 0 ? "+" : "") + percent(value, 2);
  const moment = (time, letters = 16) => {
    const text = new Date(time).toISOString();
    const day = new Date(time).toLocaleDateString("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
    return day + (letters < 11 ? " " + text.slice(0, 4) : " " + text.slice(11, letters));
  };
  const over = (a, b) => a === null || b === null || b === 0 ? null : a / b - 1;
  const none = (tag, text) => make(tag, { class: "none" }, text);
  const emptyRow = (text, columns) => make("tr", {}, make("td", { class: "none", colspan: columns }, text));

  const figure = (label, value, note = "", tone = "") => make("div", {}, make("dt", {}, label),
    make("dd", { class: "value " + tone }, value), make("dd", { class: "note" }, note));
  const figures = view => {
    const { equity, equal_weight, expected, low, high } = view.series, end = equity.length - 1;
    const worth = end < 0 ? null : equity[end], peak = Math.max(...equity.filter(value => value !== null));
    const lead = end < 0 ? null : over(worth, equal_weight[end]), off = end < 0 ? null : over(worth, expected[end]);
    let inside = "";
    if (off !== null && low[end] !== null && high[end] !== null) {
      inside = worth < low[end] ? "below its range" : worth > high[end] ? "above its range" : "within its range";
    }
    const gain = end < 0 ? null : over(worth, equity[0]), fall = end < 0 ? null : over(worth, peak);
    const tone = value => value === null || Math.abs(value) < 5e-5 ? "" : value > 0 ? "good" : "bad";
    return [
      figure("Equity", money(worth), gain === null ? "" : signed(gain) + " since start"),
      figure("Over equal weight", signed(lead), "", tone(lead)),
      figure("Over the backtest", signed(off), inside, inside === "below its range" ? "bad" : ""),
      figure("Drawdown", percent(fall, 2), "from the highest"),
      figure("Cash", worth ? percent(view.cash / worth) : "–", money(view.cash)),
      figure("Members apart", percent(view.dispersion, 0), "0: they agree"),
    ];
  };

  const LINES = ["equity", "equal_weight", "expected"], NAMES = ["Desk", "Equal weight", "Backtest"];
  let series = null, hovered = null;
  const niceStep = raw => {
    const power = 10 ** Math.floor(Math.log10(raw));
    return power * [1, 2, 5, 10].find(factor => factor * power >= raw * .999999);
  };
  const pathOf = (values, x, y) => {
    let path = "", pen = "M";
    values.forEach((value, i) => {
      if (value === null) { pen = "M"; return; }
      path += pen + x(i).toFixed(1) + " " + y(value).toFixed(1);
      pen = "L";
    });
    return path;
  };
  const bandOf = (low, high, x, y) => {
    let path = "", start = -1;
    for (let i = 0; i <= low.length; i++) {
      const seen = i < low.length && low[i] !== null && high[i] !== null;
      if (seen && start < 0) start = i;
      if (seen || start < 0) continue;
      const there = [], back = [];
      for (let j = start; j < i; j++) {
        there.push(x(j).toFixed(1) + " " + y(high[j]).toFixed(1));
        back.unshift(x(j).toFixed(1) + " " + y(low[j]).toFixed(1));
      }
      path += "M" + there.concat(back).join("L") + "z";
      start = -1;
    }
    return path;
  };
  const chart = () => {
    const plot = at("plot");
    plot.replaceChildren();
    const shown = series ? [...LINES, "low", "high"].flatMap(name => series[name]).filter(value => value !== null) : [];
    if (!shown.length) return plot.append(none("p", "It begins with the first bar."));
    let low = Math.min(...shown), high = Math.max(...shown);
    if (high - low < 1e-9 * Math.abs(high)) { low -= Math.abs(low) * .01 || 1; high += Math.abs(high) * .01 || 1; }
    const step = niceStep((high - low) / 5), letters = value => value.toLocaleString("en", {
      maximumFractionDigits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) });
    low = Math.floor(low / step + 1e-9) * step; high = Math.ceil(high / step - 1e-9) * step;
    const ticks = [];
    for (let value = low; value <= high + step / 2; value += step) ticks.push(value);
    const left = 12 + 7 * Math.max(...ticks.map(value => letters(value).length));
    plot.style.marginLeft = left + "px";
    const width = plot.clientWidth, height = plot.clientHeight, count = series.at.length;
    const svg = draw("svg", plot, { role: "img", tabindex: 0, "aria-label": "Equity over time",
      viewBox: `0 0 ${width} ${height}` });
    const x = i => count > 1 ? i / (count - 1) * width : width / 2, y = value => height * (high - value) / (high - low);
    const grid = draw("g", svg, { class: "grid" }), labels = draw("g", svg, { class: "ticks" });
    for (const value of ticks) {
      draw("line", grid, { x1: 0, x2: width, y1: y(value), y2: y(value) });
      draw("text", labels, { class: "y", x: -8, y: y(value), dy: ".35em" }, typeset(letters(value)));
    }
    const days = (Date.parse(series.at[count - 1]) - Date.parse(series.at[0])) / 864e5;
    const parts = Math.max(1, Math.min(count - 1, Math.floor(width / 130)));
    for (let k = 0, before = ""; k <= parts; k++) {
      const i = Math.round(k / parts * (count - 1)), text = moment(series.at[i], days > 20 ? 10 : 16);
      if (text === before) continue;
      before = text;
      const anchor = k === 0 && count > 1 ? "start" : k === parts && count > 1 ? "end" : "middle";
      draw("line", grid, { class: "mark", x1: x(i), x2: x(i), y1: height, y2: height + 4 });
      draw("text", labels, { x: x(i), y: height, dy: "1.7em" }, text).style.textAnchor = anchor;
    }
    draw("path", svg, { class: "band", d: bandOf(series.low, series.high, x, y) });
    for (const i of [2, 1, 0]) {
      const group = draw("g", svg, { class: "a" + i });
      draw("path", group, { class: "line", d: pathOf(series[LINES[i]], x, y) });
      const last = series[LINES[i]][count - 1];
      if (count === 1 && last !== null) draw("circle", group, { cx: x(0), cy: y(last), r: 3 }).style.fill = "var(--c)";
    }
    const cursor = draw("g", svg, { class: "cursor off" });
    const mark = draw("line", cursor, { y1: 0, y2: height });
    const dots = LINES.map((_, i) => draw("circle", cursor, { class: "a" + i, r: 4 }));
    const tip = make("div", { class: "tip" });
    tip.hidden = true;
    plot.append(tip);
    const show = index => {
      hovered = index === null ? null : Math.max(0, Math.min(count - 1, index));
      cursor.classList.toggle("off", hovered === null);
      tip.hidden = hovered === null;
      if (hovered === null) return;
      for (const end of ["x1", "x2"]) mark.setAttribute(end, x(hovered));
      const rows = LINES.map((name, i) => {
        const value = series[name][hovered];
        dots[i].classList.toggle("off", value === null);
        if (value !== null) { dots[i].setAttribute("cx", x(hovered)); dots[i].setAttribute("cy", y(value)); }
        return make("div", { class: "a" + i }, make("i"), make("span", {}, NAMES[i]), make("em", {}, money(value)));
      });
      const [bottom, top] = [series.low[hovered], series.high[hovered]];
      if (bottom !== null && top !== null) {
        rows.push(make("div", {}, make("span", {}, "Its range"), make("em", {}, money(bottom) + " – " + money(top))));
      }
      tip.replaceChildren(make("b", {}, moment(series.at[hovered]) + " UTC"), ...rows);
      const beside = x(hovered) + 14, room = width - tip.offsetWidth;
      tip.style.left = Math.max(0, Math.min(room, beside > room ? x(hovered) - tip.offsetWidth - 14 : beside)) + "px";
      tip.style.top = "0px";
    };
    svg.addEventListener("pointermove", event => {
      const box = svg.getBoundingClientRect();
      show(Math.round((event.clientX - box.left) / box.width * (count - 1)));
    });
    svg.addEventListener("pointerleave", () => show(null));
    svg.addEventListener("blur", () => show(null));
    svg.addEventListener("keydown", event => {
      const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20 }[event.key];
      if (event.key === "Escape") show(null);
      if (!move) return;
      event.preventDefault();
      show(hovered === null ? (move > 0 ? 0 : count - 1) : hovered + move);
    });
    if (hovered !== null) show(hovered);
  };

  const limitOf = limit => {
    const share = limit.share === null ? 0 : limit.share, text = limit.unit === "%" ? percent : short;
    const unit = limit.unit && limit.unit !== "%" ? "\\u00a0" + limit.unit : "";
    const used = text(limit.value) + " of " + text(limit.limit) + unit;
    const fill = make("i");
    fill.style.width = 100 * Math.max(0, Math.min(1, share)) + "%";
    return make("div", { class: "limit " + (share >= 1 ? "over" : share >= .75 ? "near" : "") },
      make("div", {}, make("b", {}, limit.name), make("span", {}, used)),
      make("div", { class: "track", role: "meter", "aria-label": limit.name, "aria-valuemin": 0, "aria-valuemax": 1,
        "aria-valuenow": Math.max(0, Math.min(1, share)) }, fill));
  };
  const alertOf = alert => make("li", {},
    make("p", {}, make("b", { class: ["info", "warning", "critical"].find(level => level === alert.level) || "" },
      alert.kind), " · " + moment(alert.at) + (alert.count > 1 ? " · " + alert.count + " times" : "")), alert.text);
  const cell = (text, kind = "num") => make("td", { class: kind }, text);
  const positionOf = held => make("tr", {}, make("th", { scope: "row" }, held.symbol), cell(percent(held.weight)),
    cell(percent(held.target)), cell(money(held.value), "num wide"),
    cell(money(held.profit), "num " + (held.profit < 0 ? "bad" : held.profit > 0 ? "good" : "")),
    cell(short(held.quantity), "num wide"), cell(price(held.price), "num wide"));
  const orderOf = order => make("tr", {}, make("th", { scope: "row" }, order.symbol), cell(order.side, ""),
    cell(short(order.quantity)), cell(short(order.filled), "num wide"),
    cell(order.status, ["rejected", "unknown"].includes(order.status) ? "bad" : ""),
    cell(price(order.price), "num wide"), cell(moment(order.at, 19), "wide"), cell(order.id, "wide"));
  const votes = all => {
    at("members").replaceChildren(make("th", { scope: "col" }, "Symbol"), ...all.map(vote => make("th",
      { scope: "col", class: "num" }, vote.member, make("small", {}, percent(vote.share, 0)))));
    const sum = new Map();
    for (const vote of all) {
      for (const [symbol, weight] of Object.entries(vote.weights)) {
        sum.set(symbol, (sum.get(symbol) || 0) + weight * vote.share);
      }
    }
    const most = Math.max(1e-9, ...all.flatMap(vote => Object.values(vote.weights).map(Math.abs)));
    const rows = [...sum].sort(([, a], [, b]) => b - a).map(([symbol]) => make("tr", {},
      make("th", { scope: "row" }, symbol), ...all.map(vote => {
        const weight = vote.weights[symbol] ?? null, node = cell(percent(weight)), strength = Math.abs(weight) / most;
        const colour = weight < 0 ? "var(--s1)" : "var(--s0)";
        node.style.background = `color-mix(in srgb, ${colour} ${Math.round(45 * strength)}%, transparent)`;
        return node;
      })));
    at("votes").replaceChildren(...(rows.length ? rows : [emptyRow("No decision yet.", 1)]));
  };
  const fill = (id, nodes, empty) => at(id).replaceChildren(...(nodes.length ? nodes : [empty]));

  const render = view => {
    document.title = view.state + " · " + view.name;
    at("name").textContent = view.name;
    at("state").textContent = view.state;
    at("state").className = "badge " + (["REDUCING", "HALTED"].includes(view.state) ? view.state : "");
    at("about").textContent = ["Ensemble " + view.version, view.broker,
      view.bar ? "bar of " + moment(view.bar) + " UTC" : "no bar yet", view.phase].filter(Boolean).join(" · ");
    at("why").hidden = view.state === "ACTIVE" || !view.why;
    at("why").textContent = view.state + ": " + view.why;
    at("why").className = "note-line " + (view.state === "HALTED" ? "bad" : "warning");
    at("reset").hidden = view.state === "ACTIVE";
    at("updated").textContent = "The desk's clock: " + moment(view.updated, 19) + " UTC";
    at("apart").textContent = view.dispersion === null ? "" : "Members are " + percent(view.dispersion, 0) + " apart.";
    fill("figures", figures(view), "");
    series = view.series;
    chart();
    fill("limits", [...view.limits].sort((a, b) => b.share - a.share).map(limitOf), none("p", "None is set."));
    fill("alerts", view.alerts.map(alertOf), none("li", "All is quiet."));
    const held = [...view.positions].sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight));
    fill("positions", held.map(positionOf), emptyRow("Nothing is held.", 7));
    fill("orders", view.orders.map(orderOf), emptyRow("None yet.", 8));
    votes(view.votes);
    root.dataset.ready = "yes";
  };

  // News: a view or a beat. Without either for a while the page says so, and tries again.
  let source = null, tried = 0, heard = 0, age = 0, silence = Infinity;
  const hear = () => { heard = Date.now(); watch(); };
  const connect = () => {
    if (source) source.close();
    tried = Date.now();
    source = new EventSource("events");
    source.addEventListener("view", event => { age = 0; render(JSON.parse(event.data)); hear(); });
    source.addEventListener("beat", event => { ({ age, silence } = JSON.parse(event.data)); hear(); });
    source.addEventListener("error", () => watch());
  };
  const duration = seconds => seconds < 90 ? Math.round(seconds) + " s" : Math.round(seconds / 60) + " min";
  const watch = () => {
    const gone = (Date.now() - heard) / 1000, waited = (Date.now() - tried) / 1000;
    const open = source && source.readyState === EventSource.OPEN;
    if (!source || (waited > 3 && source.readyState === EventSource.CLOSED) || (waited > 20 && gone > 20)) connect();
    const lost = heard && (!open || gone > 15), silent = heard && !lost && age + gone > silence;
    at("stale").hidden = Boolean(heard) && !lost && !silent;
    if (lost) at("stale").textContent = `No news since ${moment(heard, 19)} UTC (${duration(gone)}). Trying again.`;
    if (silent) at("stale").textContent = `No news since ${duration(age + gone)}: the desk says nothing.`;
    root.classList.toggle("stale", Boolean(lost || silent));
  };

  // The token is read when it is used, and is gone when the dialog closes.
  const ASKED = {
    kill: ["Stop trading?", "The desk halts and stays halted until a person resets it.", "Kill"],
    reset: ["Trade again?", "The wish is passed on to the desk, with its reason.", "Reset"],
  };
  let asked = "";
  const ask = what => {
    asked = what;
    [at("asked").textContent, at("meaning").textContent, at("do").textContent] = ASKED[what];
    at("reason").required = what === "reset";
    at("refused").hidden = true;
    at("ask").showModal();
  };
  const refuse = text => { at("refused").textContent = text; at("refused").hidden = false; };
  at("kill").addEventListener("click", () => ask("kill"));
  at("reset").addEventListener("click", () => ask("reset"));
  at("leave").addEventListener("click", () => at("ask").close());
  at("ask").addEventListener("close", () => { at("token").value = at("reason").value = ""; });
  at("ask").querySelector("form").addEventListener("submit", async event => {
    event.preventDefault();
    at("do").disabled = true;
    const token = at("token").value.trim();
    if (!/^[\\x21-\\x7e]+$/.test(token)) {
      at("do").disabled = false;
      return refuse("The token is not right.");
    }
    try {
      const answer = await fetch(asked, {
        method: "POST", signal: AbortSignal.timeout(15000), credentials: "omit",
        headers: { "Authorization": "Bearer " + token, "Content-Type": "application/json" },
        body: JSON.stringify({ reason: at("reason").value }),
      });
      if (!answer.ok) return refuse("Not done: " + (await answer.json()).error + ".");
      at("said").textContent = ASKED[asked][2] + " was passed on at " + moment(Date.now(), 19) + " UTC.";
      at("said").hidden = false;
      at("ask").close();
    } catch (error) {
      refuse("Nobody answered: stop the desk by its kill file or a signal.");
    } finally {
      at("do").disabled = false;
    }
  });

  let drawn = 0;
  new ResizeObserver(entries => {
    const width = Math.round(entries[0].contentRect.width);
    if (width !== drawn && series) { drawn = width; chart(); }
  }).observe(at("plot").parentNode);
  connect();
  setInterval(watch, 1000);
})();
"""
