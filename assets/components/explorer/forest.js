/** The forest: each unit on its own and pooled. SVG for what stays, canvas for what moves. */
import { el, fitted, setAttribute, setRuns, setText, sizeCanvas, svg, textWidth } from "./dom.js";
import { Z95 } from "./engine.js";
import { capital, fixed, meaningOfB, multiples, NBSP, niceStep, shareWords, short, spread } from "./format.js";

const RAW_RADIUS = 3.7, RADIUS = 4.5, LEAST_ARROW = 18, TOP = 22, SANS = "-apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', Arial, sans-serif";
const LABEL_FONT = `12px ${SANS}`, LABEL_BOLD = `bold 12px ${SANS}`;

export class ForestPart {
  constructor(app) {
    this.app = app;
    const { words, units } = app.data, name = `mode-${app.serial++}`;
    const mode = (value, ...label) => el("label", {}, el("input", { type: "radio", name, value, onchange: () => app.setAveraged(value === "averaged") }), el("span", {}, ...label));
    this.title = el("h2", { class: "fig-title" }, `Each ${words.one} on its own and pooled`, el("span", { class: "state", role: "status" }));
    this.modes = el("div", { class: "seg", role: "radiogroup", "aria-label": "What the forest shows" },
      mode("held", "At this ", symbol(app)), mode("averaged", "Averaged over ", symbol(app), " (exact posterior)"));
    this.sort = el("select", { "aria-label": `Order of the ${words.many}`, onchange: () => app.sortBy(this.sort.value) },
      el("option", { value: "raw" }, "by own value"), el("option", { value: "moved" }, "by move"));
    this.key = el("ul", { class: "key", "aria-label": "Marks" }, ...this.keyItems(), el("li", { class: "sorter" }, this.sort));
    this.band = el("div", { class: "band" });
    this.still = svg("svg", { "aria-hidden": "true" });
    this.canvas = el("canvas", { "aria-hidden": "true" });
    this.moving = svg("svg", { "aria-hidden": "true" });
    this.rows = el("div", { class: "hit", role: "listbox", tabindex: 0, "aria-label": capital(words.many) });
    this.stage = el("div", { class: "stage forest" }, this.band, this.still, this.canvas, this.moving, this.rows);
    this.sentence = el("p", { class: "sentence" });
    this.node = el("section", { class: "forest-part", "aria-label": `Each ${words.one} on its own and pooled` },
      el("div", { class: "head" }, this.title, this.modes), this.key, this.stage, this.sentence);
    this.truth = units.truth;
    this.listen();
  }

  keyItems() {
    const { data } = this.app, { groups, truth } = data.units;
    const raw = svg("svg", { width: 34, height: 10 }, svg("path", { d: "M0 5h34", class: "raw-line" }), svg("circle", { cx: 17, cy: 5, r: RAW_RADIUS, class: "raw-mark" }));
    const pooled = svg("svg", { width: 34, height: 10 }, svg("path", { d: "M0 5h34", class: "thin" }), svg("path", { d: "M8 5h18", class: "thick" }), svg("circle", { cx: 17, cy: 5, r: RADIUS, class: "pooled-mark" }));
    const mean = svg("svg", { width: 2, height: 16 }, svg("path", { d: "M1 0v16", class: "mean-line" })), centre = this.app.data.model.spread.center;
    const items = [el("li", {}, raw, `on its own, 95${NBSP}%`), el("li", {}, pooled, `partially pooled, 50${NBSP}% and 95${NBSP}%`)];
    this.meanKey = el("li", {}, mean, centre);
    if (groups && groups.length > 1) {
      items.push(el("li", { class: "groups" }, ...groups.slice(0, 8).map((name, g) => el("span", { title: name }, svg("svg", { width: 10, height: 10 }, svg("circle", { cx: 5, cy: 5, r: RADIUS, style: `fill: var(--ppx-g${g + 1})` })), groups.length <= 4 ? name : "")),
        groups.length > 4 ? `${groups.length} ${this.app.data.model.spread.groups}` : ""));
    }
    items.push(this.meanKey);
    if (truth) items.push(el("li", {}, svg("svg", { width: 10, height: 10 }, svg("path", { d: diamond(5, 5), class: "truth" })), "truth"));
    return items;
  }

  /* ---- geometry: from data and width, never from τ ---- */

  layout() {
    const { app } = this, { data, units, narrow, dense, J } = app, W = this.W = app.leftWidth, labels = data.units.label;
    this.decimals = data.units.digits;
    this.estimates = data.units.estimateDigits;
    const widest = texts => texts.reduce((most, text) => Math.max(most, textWidth(text, LABEL_BOLD)), 0);
    const most = narrow ? 84 : 168;
    this.x0 = dense ? (narrow ? 40 : 64) : Math.min(most, Math.max(narrow ? 30 : 58, widest([...labels.slice(0, 60), ...(narrow ? [] : [capital(data.words.one)])]) + 16));
    const own = Math.max(narrow ? 36 : 44, widest([...units.y].slice(0, 60).map(v => fixed(v, this.decimals))) + 14);
    const pooled = Math.max(narrow ? 40 : 48, widest([...units.y].slice(0, 60).map(v => fixed(v, this.estimates))) + 14), pooling = narrow ? 0 : 40;
    this.columns = { own: W - pooling - pooled, pooled: W - pooling, pooling: pooling ? W : 0 };
    this.x1 = dense ? W - (narrow ? 76 : 104) : W - pooling - pooled - own;
    this.pitch = dense ? 400 / J : J > 12 ? (narrow ? 24 : 20) : narrow ? 28 : 24;
    this.offset = dense ? 0 : Math.min(4.75, this.pitch * 0.19);
    this.y1 = TOP + J * this.pitch + 4;
    this.height = this.y1 + 38;
    let lo = Infinity, hi = -Infinity;
    // Intervals of their own where Python gives them, otherwise ± 1.96 standard errors.
    const { low, high } = data.units;
    this.own = low ? i => [low[i], high[i]] : i => [units.y[i] - Z95 * units.s[i], units.y[i] + Z95 * units.s[i]];
    for (let i = 0; i < J; i++) { const [a, b] = this.own(i); lo = Math.min(lo, a); hi = Math.max(hi, b); }
    if (low) {
      // A few hardly known units must not flatten the rest: the axis ends four typical errors beyond the estimates.
      const reach = 4 * [...units.s].sort((a, b) => a - b)[J >> 1];
      lo = Math.max(lo, Math.min(...units.y) - reach); hi = Math.min(hi, Math.max(...units.y) + reach);
    }
    const step = niceStep((hi - lo) / (narrow ? 4 : 6));
    if (low) this.own = i => [Math.max(low[i], this.axis.lo), Math.min(high[i], this.axis.hi)];
    app.effectAxis = this.axis = { lo: Math.floor(lo / step) * step, hi: Math.ceil(hi / step) * step, step };
    app.plot = { x0: this.x0, x1: this.x1 };
    this.rank = new Int32Array(J);
    app.order.forEach((i, row) => { this.rank[i] = row; });
    this.stage.style.height = `${this.height}px`;
    for (const layer of [this.still, this.moving]) { layer.setAttribute("width", W); layer.setAttribute("height", this.height); }
    this.context = sizeCanvas(this.canvas, W, this.height);
    Object.assign(this.rows.style, { top: `${TOP}px`, height: `${J * this.pitch}px` });
    this.band.style.height = `${Math.max(3, this.pitch)}px`;
    this.drawStill();
  }

  X(v) { return this.x0 + (this.x1 - this.x0) * (v - this.axis.lo) / (this.axis.hi - this.axis.lo); }
  rowY(i) { return TOP + 2 + (this.rank[i] + 0.5) * this.pitch; }

  drawStill() {
    const { app, x0, x1, y1 } = this, { data, units, narrow, dense, J } = app, labels = data.units.label, parts = [];
    for (const v of multiples(this.axis.lo, this.axis.hi, this.axis.step)) {
      const x = Math.round(this.X(v)) + 0.5;
      parts.push(svg("path", { d: `M${x} ${TOP}V${y1}`, class: v === 0 ? "zero" : "grid" }), svg("path", { d: `M${x} ${y1}v4`, class: "axis-line" }),
        svg("text", { class: "tick", x, y: y1 + 17, "text-anchor": "middle" }, short(v)));
    }
    const axis = data.words.unit ? `${data.words.outcome}, ${data.words.unit}` : data.words.outcome;
    parts.push(svg("path", { d: `M${x0} ${y1 + 0.5}H${x1}`, class: "axis-line" }), svg("text", { class: "axis", x: (x0 + x1) / 2, y: y1 + 34, "text-anchor": "middle" }, fitted(axis, this.W - 8, LABEL_FONT)));
    this.raws = svg("g", {});
    if (dense) {
      let lines = "", marks = "";
      for (let i = 0; i < J; i++) {
        const y = this.rowY(i).toFixed(2), x = this.X(units.y[i]), [a, b] = this.own(i);
        lines += `M${this.X(a).toFixed(1)} ${y}H${this.X(b).toFixed(1)}`;
        marks += `M${(x - 1.1).toFixed(1)} ${y}h2.2`;
      }
      this.raws.append(svg("path", { d: lines, class: "raw-line", "stroke-width": 0.5, opacity: 0.35 }), svg("path", { d: marks, class: "raw-stroke", "stroke-width": 2 }));
    } else {
      for (let i = 0; i < J; i++) {
        const y = this.rowY(i) - this.offset, [a, b] = this.own(i);
        this.raws.append(svg("path", { d: `M${this.X(a)} ${y}H${this.X(b)}`, class: "raw-line" }));
      }
    }
    parts.push(this.raws);
    const known = (this.truth || []).map((v, i) => [v, i]).filter(([v]) => Number.isFinite(v));
    if (dense) parts.push(svg("path", { d: known.map(([v, i]) => `M${(this.X(v) - 0.8).toFixed(1)} ${this.rowY(i).toFixed(2)}h1.6`).join(""), class: "truth-dense" }));
    else parts.push(svg("path", { d: known.map(([v, i]) => diamond(this.X(v), this.rowY(i))).join(""), class: "truth" }));
    this.labels = [];
    const head = { y: TOP - 8, class: "col" }, moving = [this.meanText = svg("text", { class: "col", y: TOP - 8, "text-anchor": "middle" })];
    this.cells = [];
    if (dense) {
      parts.push(svg("text", { ...head, x: 0 }, `${J} ${data.words.many}`));
      moving.push(this.focusLabel = svg("text", { class: "unit on", x: 0 }));
    } else {
      const { own, pooled, pooling } = this.columns;
      if (!narrow) parts.push(svg("text", { ...head, x: 0 }, fitted(capital(data.words.one), x0 - 8, LABEL_FONT)));
      parts.push(svg("text", { ...head, x: own, "text-anchor": "end" }, "own"), svg("text", { ...head, x: pooled, "text-anchor": "end" }, "pooled"));
      this.poolingHead = pooling ? svg("text", { ...head, x: pooling, "text-anchor": "end", class: "col maths" }, "B") : null;
      if (this.poolingHead) {
        this.poolingHead.append(svg("title", {}, meaningOfB(data.model.spread)));
        parts.push(this.poolingHead);
      }
      for (let i = 0; i < J; i++) {
        const y = this.rowY(i) + 4, label = svg("text", { class: "unit", x: 0, y }, fitted(labels[i], x0 - 10, LABEL_BOLD));
        label.append(svg("title", {}, labels[i]));
        this.labels.push(label);
        const cell = { pooled: svg("text", { class: "pool", x: pooled, y, "text-anchor": "end" }), pooling: pooling ? svg("text", { class: "number", x: pooling, y, "text-anchor": "end" }) : null };
        this.cells.push(cell);
        moving.push(svg("text", { class: "number", x: own, y, "text-anchor": "end" }, fixed(units.y[i], this.decimals)), cell.pooled, ...(cell.pooling ? [cell.pooling] : []));
      }
    }
    this.still.replaceChildren(...parts, ...this.labels);
    this.moving.replaceChildren(...moving);
    this.options = app.order.map(i => el("span", { class: "sr", role: "option", id: `unit-${app.serial}-${i}` }, `${capital(data.words.one)} ${labels[i]}`));
    this.optionOf = [];
    app.order.forEach((i, row) => { this.optionOf[i] = this.options[row]; });
    this.rows.replaceChildren(...(dense ? [this.options[0]] : this.options));
    this.marked = -1;
  }

  /* ---- after a new posterior ---- */

  refresh() {
    const { app } = this, held = app.canHold;
    for (const input of this.modes.querySelectorAll("input")) input.disabled = !held && input.value === "held";
    this.modes.hidden = Boolean(app.data.model.why_no_tau);
    this.sort.value = app.sorting;
    setText(this.title.lastChild, app.updating ? " updating…" : "");
    this.meanKey.hidden = !app.posterior || !(Number.isFinite(app.posterior.view.m) || app.groupMeans());
  }

  /* ---- every frame ---- */

  render() {
    this.drawMarks();
    this.drawWords();
  }

  drawMarks() {
    const { app, context: c, x0, x1 } = this, { colours, shown, focus, dense, J } = app, dim = app.hover >= 0;
    c.clearRect(0, 0, this.W, this.height);
    c.save();
    c.beginPath();
    c.rect(x0 - 6, 0, x1 - x0 + 12, this.height);
    c.clip();
    if (app.ghost) this.drawGhost(c);
    if (Number.isFinite(shown.m)) {
      const x = this.X(shown.m);
      c.strokeStyle = colours.ink; c.lineWidth = 1.25; c.setLineDash([4, 3]);
      c.beginPath(); c.moveTo(x, TOP - 3); c.lineTo(x, this.y1); c.stroke();
      c.setLineDash([]);
    }
    (app.groupMeans() || []).forEach((mean, g) => {
      const x = this.X(mean);
      c.strokeStyle = colours[app.groupColour(g)]; c.lineWidth = 1.25; c.setLineDash([4, 3]);
      c.beginPath(); c.moveTo(x, TOP - 3); c.lineTo(x, this.y1); c.stroke();
      c.setLineDash([]);
    });
    if (dense) { this.drawCaterpillar(c); this.drawRow(c, focus, 1, 3.4); }
    else for (let i = 0; i < J; i++) this.drawRow(c, i, dim && i !== focus ? 0.38 : 1, i === focus ? 5 : RADIUS);
    c.restore();
    this.raws.style.opacity = dim && !dense ? 0.55 : 1;
  }

  drawCaterpillar(c) {
    const { app } = this, { shown: v, J } = app, byColour = new Map();
    for (let i = 0; i < J; i++) { const name = app.colourName(i); if (!byColour.has(name)) byColour.set(name, []); byColour.get(name).push(i); }
    for (const [name, members] of byColour) {
      c.strokeStyle = c.fillStyle = app.colours[name];
      for (const [lo, hi, opacity, width] of [[v.lo95, v.hi95, 0.28, 0.5], [v.lo50, v.hi50, 0.55, 0.8]]) {
        c.globalAlpha = opacity; c.lineWidth = width; c.beginPath();
        for (const i of members) { const y = this.rowY(i); c.moveTo(this.X(lo[i]), y); c.lineTo(this.X(hi[i]), y); }
        c.stroke();
      }
      c.globalAlpha = 1; c.beginPath();
      for (const i of members) c.rect(this.X(v.mean[i]) - 1.2, this.rowY(i) - 1.2, 2.4, 2.4);
      c.fill();
    }
  }

  drawRow(c, i, opacity, radius) {
    const { app } = this, { shown: v, colours, units } = app, y = this.rowY(i) + this.offset, rawY = this.rowY(i) - this.offset, x = this.X(v.mean[i]), rawX = this.X(units.y[i]);
    const own = app.colour(i), on = i === app.focus, disc = (cx, cy, r) => { c.beginPath(); c.arc(cx, cy, r, 0, 2 * Math.PI); };
    c.globalAlpha = 1;
    disc(rawX, rawY, RAW_RADIUS); c.fillStyle = colours.paper; c.fill();
    c.globalAlpha = opacity < 1 ? 0.6 : 1; c.lineWidth = 1.5; c.strokeStyle = colours.raw; c.stroke();
    c.globalAlpha = opacity;
    c.strokeStyle = own;
    for (const [lo, hi, width] of [[v.lo95[i], v.hi95[i], 1.25], [v.lo50[i], v.hi50[i], 4]]) { c.lineWidth = width; c.beginPath(); c.moveTo(this.X(lo), y); c.lineTo(this.X(hi), y); c.stroke(); }
    const dx = x - rawX, dy = y - rawY, length = Math.hypot(dx, dy);
    if (length > LEAST_ARROW) this.drawArrow(c, rawX, rawY, dx / length, dy / length, length, radius, on ? colours.ink : colours["ink-3"], on ? 1.5 : 1);
    disc(x, y, radius); c.fillStyle = own; c.fill();
    c.lineWidth = 1.25; c.strokeStyle = colours.paper; c.stroke();
    c.globalAlpha = 1;
  }

  /** From rim to rim, above the intervals so that its head is seen. */
  drawArrow(c, x, y, ux, uy, length, radius, colour, width) {
    const tip = length - radius - 1.5, tx = x + ux * tip, ty = y + uy * tip;
    c.strokeStyle = c.fillStyle = colour; c.lineWidth = width;
    c.beginPath(); c.moveTo(x + ux * 5, y + uy * 5); c.lineTo(tx - ux * 4, ty - uy * 4); c.stroke();
    c.beginPath(); c.moveTo(tx, ty); c.lineTo(tx - ux * 6 - uy * 2.8, ty - uy * 6 + ux * 2.8); c.lineTo(tx - ux * 6 + uy * 2.8, ty - uy * 6 - ux * 2.8); c.fill();
  }

  drawGhost(c) {
    const { app } = this, { ghost: v, J, colours, dense } = app;
    c.save();
    c.globalAlpha = dense ? 0.25 : 0.5;
    c.lineWidth = dense ? 0.5 : 1; c.strokeStyle = colours["ink-3"]; c.setLineDash([2, 2]);
    c.beginPath();
    for (let i = 0; i < J; i++) { const y = this.rowY(i) + this.offset + (dense ? 0 : 3.5); c.moveTo(this.X(v.lo95[i]), y); c.lineTo(this.X(v.hi95[i]), y); }
    if (Number.isFinite(v.m)) { c.moveTo(this.X(v.m), TOP); c.lineTo(this.X(v.m), this.y1); }
    c.stroke();
    c.setLineDash([]);
    c.globalAlpha = 0.75;
    if (!dense) for (let i = 0; i < J; i++) { c.beginPath(); c.arc(this.X(v.mean[i]), this.rowY(i) + this.offset + 3.5, 3.5, 0, 2 * Math.PI); c.stroke(); }
    c.restore();
  }

  drawWords() {
    const { app } = this, { data, shown, focus, units, posterior, dense, J } = app, label = data.units.label[focus];
    this.cells.forEach((cell, i) => {
      setText(cell.pooled, fixed(shown.mean[i], this.estimates));
      if (cell.pooling) setText(cell.pooling, Number.isFinite(shown.B[i]) ? shown.B[i].toFixed(2) : "");
    });
    if (this.poolingHead) this.poolingHead.style.display = posterior.hasPooling ? "" : "none";
    setText(this.meanText, Number.isFinite(shown.m) ? `pooled mean ${fixed(shown.m, this.estimates)}` : "");
    setAttribute(this.meanText, "x", Math.max(this.x0 + 40, Math.min(this.x1 - 40, this.X(shown.m) || 0)).toFixed(1));
    const target = app.target(), weights = app.weights(focus), runs = [];
    if (!app.averaged) runs.push(["If ", "muted"], [app.symbol, "muted maths"], [` were ${spread(app.tau, units.c)}: `, "muted"]);
    runs.push([`${capital(data.words.one)} ${label}: ${fixed(units.y[focus], this.decimals)}`, "strong"], [`${NBSP}±${NBSP}${fixed(units.s[focus], this.decimals)}`, "strong", "± standard error"], [" → ", "strong"], [fixed(target.mean[focus], this.estimates), "pooled"], [". ", "strong"]);
    runs.push(weights ? `${shareWords(weights, data.words.many, { its: "its ", the: "the " })}.` : `95${NBSP}% between ${fixed(target.lo95[focus], this.estimates)} and ${fixed(target.hi95[focus], this.estimates)}${data.model.why_no_pooling ? ` (${data.model.why_no_pooling})` : ""}.`);
    setRuns(this.sentence, runs);
    for (const input of this.modes.querySelectorAll("input")) input.checked = (input.value === "averaged") === app.averaged;
    const y = this.rowY(focus);
    this.band.style.transform = `translateY(${y - Math.max(3, this.pitch) / 2}px)`;
    if (dense) { setText(this.focusLabel, fitted(label, this.x0 - 6, LABEL_BOLD)); setAttribute(this.focusLabel, "y", (y + 4).toFixed(1)); }
    if (this.marked === focus && this.markedSelected === app.selected) return;
    this.marked = focus;
    this.markedSelected = app.selected;
    this.labels.forEach((node, i) => node.classList.toggle("on", i === focus));
    const option = this.optionOf[focus];
    if (dense) { this.rows.replaceChildren(option); setAttribute(option, "aria-setsize", J); setAttribute(option, "aria-posinset", this.rank[focus] + 1); }
    for (let i = 0; i < J; i++) if (!dense || i === focus) setAttribute(this.optionOf[i], "aria-selected", i === app.selected);
    setAttribute(this.rows, "aria-activedescendant", option.id);
  }

  /* ---- the hand: hover shows, click keeps, arrows walk ---- */

  listen() {
    const { app, rows } = this;
    const unit = event => app.order[Math.max(0, Math.min(app.J - 1, Math.floor((event.clientY - rows.getBoundingClientRect().top) / this.pitch)))];
    rows.addEventListener("pointermove", event => { if (event.pointerType !== "touch") app.setHover(unit(event)); });
    rows.addEventListener("pointerleave", () => app.setHover(-1));
    rows.addEventListener("click", event => app.select(unit(event)));
    rows.addEventListener("keydown", event => {
      const move = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity }[event.key];
      if (!move) return;
      event.preventDefault();
      app.select(app.order[Math.max(0, Math.min(app.J - 1, this.rank[app.selected] + move))]);
    });
  }
}

/** The spread's symbol, explained on hover. */
function symbol(app) { return el("i", { title: app.data.model.spread.meaning }, app.symbol); }

/** Path of the small diamond that marks truth. */
function diamond(x, y) { return `M${x.toFixed(1)} ${(y - 4).toFixed(1)}l4 4l-4 4l-4 -4Z`; }
