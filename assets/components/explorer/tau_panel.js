/** The τ panel: every estimate from complete pooling to none, the density of τ, and the handle that moves both. */
import { el, faded, setAttribute, setRuns, setText, sizeCanvas, svg, tip } from "./dom.js";
import { Z50 } from "./engine.js";
import { capital, dodged, multiples, niceStep, short, spread } from "./format.js";

const SAMPLES = 120, BAND_SAMPLES = 80, DENSITY = 320, PANEL_TOP = 8;
const ROOM = 112, LETTER = 5.4;   // px: "complete pooling" and a gap; a letter of an axis
const BUNDLE_REST = 120;   // ms between drawings of many lines while a prior moves

export class TauPart {
  constructor(app) {
    this.app = app;
    const { words } = app.data, unit = words.unit ? `, in ${words.unit},` : "";
    this.still = svg("svg", { "aria-hidden": "true" });
    this.bundle = el("canvas", { "aria-hidden": "true" });
    this.focused = el("canvas", { "aria-hidden": "true" });
    this.marks = svg("svg", { "aria-hidden": "true" });
    this.front = el("canvas", { class: "front", "aria-hidden": "true" });
    this.scrub = el("div", { class: "scrub" });
    this.value = el("span", {});
    this.pill = el("div", { class: "pill", role: "slider", tabindex: 0, "aria-orientation": "horizontal", "aria-valuemin": 0, "aria-valuemax": 100, "aria-label": `${capital(app.data.model.spread.spoken)}, the spread of true effects` },
      el("span", { class: "grip" }), this.value);
    this.line = el("div", { class: "playhead-line" });
    this.foot = el("div", { class: "playhead-foot" });
    this.playhead = el("div", { class: "playhead" }, this.line, this.foot, this.pill);
    this.stage = el("div", { class: "stage tau" }, this.still, this.bundle, this.focused, this.marks, this.scrub, this.playhead, this.front);
    this.why = el("p", { class: "why" });
    this.caption = el("p", { class: "caption" });
    this.node = el("section", { class: "tau-part", "aria-label": "The estimates for every possible tau" },
      el("h2", { class: "fig-title" }, `The same estimates${unit} for every possible `, tip("i", "", app.symbol, app.data.model.spread.meaning)), this.why, this.stage, this.caption);
    this.listen();
  }

  layout() {
    const { app } = this, { units, narrow } = app, W = this.W = app.leftWidth, y = units.y;
    ({ x0: this.x0, x1: this.x1 } = app.plot || { x0: narrow ? 30 : 58, x1: W - (narrow ? 76 : 132) });
    let lo = Infinity, hi = -Infinity;
    for (const v of y) { lo = Math.min(lo, v); hi = Math.max(hi, v); }
    const room = (hi - lo) * 0.1 || units.c;
    this.effects = { lo: lo - room, hi: hi + room, step: niceStep((hi - lo + 2 * room) / 3.8) };
    this.y0 = PANEL_TOP; this.y1 = PANEL_TOP + (narrow ? 150 : 128);
    this.rail = this.y1 + 19;
    // Where lines end: raw values, until the lines say otherwise.
    if (!this.arrived || this.arrived.length !== app.J) this.arrived = [...units.y];
    this.d0 = this.rail + 18; this.d1 = this.d0 + 54;
    // The axis's words stand between those of its ends where there is room, else below.
    const half = (this.x1 - this.x0) / 2, { words } = app.data.model.spread;
    this.stacked = narrow || ROOM + LETTER * words.length / 2 > half;
    this.height = this.d1 + (this.stacked ? 56 : 40);
    this.stage.style.height = `${this.height}px`;
    for (const layer of [this.still, this.marks]) { layer.setAttribute("width", W); layer.setAttribute("height", this.height); }
    [this.cBundle, this.cFocus, this.cFront] = [this.bundle, this.focused, this.front].map(canvas => sizeCanvas(canvas, W, this.y1 + 8));
    Object.assign(this.scrub.style, { left: `${this.x0 - 10}px`, width: `${this.x1 - this.x0 + 20}px`, top: "0", height: `${this.d1 + 26}px` });
    Object.assign(this.line.style, { top: `${this.y0 - 4}px`, height: `${this.d1 - this.y0 + 4}px` });
    this.pill.style.top = `${this.rail - 12}px`;
    this.foot.style.top = `${this.d1 + 1}px`;
    this.drawStill();
    this.pillText = null;
  }

  Y(v) { return this.y1 - (this.y1 - this.y0) * (v - this.effects.lo) / (this.effects.hi - this.effects.lo); }
  /** The height of a value, at the picture's edge where the value lies beyond it. */
  edge(v) { return Math.max(this.y0, Math.min(this.y1, this.Y(v))); }
  /** Which way a value leaves the picture: "↑ ", "↓ " or not at all. */
  leaves(v) { return v > this.effects.hi ? "↑ " : v < this.effects.lo ? "↓ " : ""; }
  X(u) { return this.x0 + (this.x1 - this.x0) * u; }

  /* ---- what stays: axes, and the values that wait at infinity ---- */

  drawStill() {
    const { app, x0, x1, y0, y1, d0, d1 } = this, { data, narrow, units, J, dense } = app, parts = [];
    for (const v of multiples(this.effects.lo, this.effects.hi, this.effects.step)) {
      const y = Math.round(this.Y(v)) + 0.5;
      parts.push(svg("path", { d: `M${x0} ${y}H${x1}`, class: v === 0 ? "zero" : "grid" }), svg("text", { class: "tick", x: x0 - 9, y: y + 4, "text-anchor": "end" }, short(v)));
    }
    const decade = Math.floor(Math.log10(units.c)), ticks = [0], minor = [];
    for (let k = decade - 2; k <= decade + 2; k++) for (let d = 1; d < 10; d++) ([1, 2, 5].includes(d) ? ticks : minor).push(+(d * 10 ** k).toPrecision(6));
    ticks.push(Infinity);
    let last = -Infinity;
    for (const t of minor) { const x = this.X(app.share(t)); if (x - last > 4 && x1 - x > 4 && x - x0 > 12) { parts.push(svg("path", { d: `M${x.toFixed(1)} ${d1}v3`, class: "axis-line" })); last = x; } }
    last = -Infinity;
    for (const t of ticks) {
      const x = Math.round(this.X(app.share(t))) + 0.5, end = t === 0 || t === Infinity;
      if (!end && (x - last < 24 || x1 - x < 24)) continue;
      last = x;
      parts.push(svg("path", { d: `M${x} ${y0}V${y1}M${x} ${d0}V${d1}`, class: end ? "zero" : "grid" }), svg("path", { d: `M${x} ${d1}v${end ? 6 : 5}`, class: "axis-line" }),
        svg("text", { class: t === Infinity ? "tick infinity" : "tick", x, y: d1 + 19, "text-anchor": "middle" }, t === Infinity ? "∞" : short(t)));
    }
    const ends = d1 + 36, inset = narrow ? 4 : 0, unit = data.words.unit && !data.model.spread.unitless ? `, ${data.words.unit}` : "";
    parts.push(
      svg("text", { class: "axis", x: x0 - inset, y: ends }, "complete pooling"), svg("text", { class: "axis", x: x1 + inset, y: ends, "text-anchor": "end" }, data.model.spread.end),
      svg("text", { class: "axis", x: (x0 + x1) / 2, y: this.stacked ? ends + 17 : ends, "text-anchor": "middle" }, svg("tspan", { class: "maths" }, app.symbol), `, ${data.model.spread.words}${unit}`),
      svg("path", { d: `M${x0} ${this.rail}H${x1}`, class: "rail" }),
    );
    this.still.replaceChildren(...parts);

    this.ends = [];
    const ends2 = [];
    this.density = { post: svg("path", { class: "post-line" }), area: svg("path", { class: "post-area" }), prior: svg("path", { class: "prior-line" }) };
    if (!dense) {
      const fits = 12 * J <= y1 - y0 + 24, at = this.arrived.map(v => this.edge(v)), labelled = fits ? dodged(at, 12, y0 - 4, y1 + 4) : at, limit = this.W - x1 - 17;
      for (let i = 0; i < J; i++) {
        // A line that leaves the picture ends nowhere in it: its name stands at the edge, with an arrow.
        const way = this.leaves(this.arrived[i]);
        if (!way) ends2.push(svg("circle", { cx: x1, cy: at[i], r: 2.6, class: "end-mark" }));
        if (fits) ends2.push(svg("path", { d: `M${x1 + 5} ${at[i]}L${x1 + 13} ${labelled[i]}`, class: "zero" }));
        const label = svg("text", { class: fits ? "end" : "end rare", x: x1 + 17, y: labelled[i] + 4 }, way + shortened(data.units.label[i], limit - (way ? 13 : 0)));
        this.ends.push(label);
        ends2.push(label);
      }
    } else {
      this.far = svg("text", { class: "end on", x: x1 + 9 });
      ends2.push(this.far);
    }
    const lx = x1 + (narrow ? 8 : 17), width = narrow ? 9 : 16;
    this.priorKey = svg("g", {}, svg("path", { d: `M${lx} ${d0 + 16}h${width}`, class: "prior-line" }), svg("text", { class: "end", x: lx + width + 6, y: d0 + 20 }, "prior"));
    this.marks.replaceChildren(...ends2, this.density.area, this.density.post, this.density.prior, svg("path", { d: `M${x0} ${d1 + 0.5}H${x1}`, class: "axis-line" }), this.priorKey,
      svg("path", { d: `M${lx} ${d0 + 29}h${width}v9h${-width}Z`, class: "post-area" }), svg("path", { d: `M${lx} ${d0 + 29}h${width}`, class: "post-line" }), svg("text", { class: "end", x: lx + width + 6, y: d0 + 38 }, "posterior"));
    this.marked = -1;
  }

  /* ---- what follows the priors ---- */

  densities() {
    const { app } = this, given = app.posterior && app.posterior.source === "server" && app.posterior.density;
    if (given) return { u: given.u, prior: given.prior, post: given.post };
    const both = app.tauDistributions();
    if (!both) return null;
    const u = Array.from({ length: DENSITY }, (_, k) => (k + 0.5) / DENSITY), c = app.units.c;
    const along = d => u.map(v => d.density(c * v / (1 - v)) * c / (1 - v) ** 2);
    return { u, prior: both.prior ? along(both.prior) : null, post: along(both.post) };
  }

  refresh() {
    const { app } = this, { words } = app.data, why = app.data.model.why_no_tau;
    setText(this.why, why || "");
    this.why.hidden = !why;
    this.node.classList.toggle("off", !app.canHold);
    this.stage.inert = !app.canHold;
    setAttribute(this.pill, "aria-disabled", !app.canHold);
    const exact = app.posterior && app.posterior.error > 0 ? ` Exact to ${powerOfTen(app.posterior.error)}${words.unit ? ` ${words.unit}` : ""}.` : "";
    const prior = app.priors.mu, dashed = !app.posterior || !Number.isFinite(app.posterior.view.m) ? "" : prior && prior.family !== "Flat" ? "; dashed: the pooled mean, which falls back to the prior's mean as " : "; dashed: the pooled mean";
    setRuns(this.caption, [["How to read this.", "strong"], ` Each arrow runs from what ${words.a_one} measured to what it is pooled to. Below, each line follows one ${words.one} from ${app.data.model.spread.together} (left) to ${app.data.model.spread.apart} (right), darkest where the data put `,
      [app.symbol, "maths"], ...(dashed.endsWith(" ") ? [dashed, [app.symbol, "maths"], " grows"] : [dashed]), "; drag ", [app.symbol, "maths"], ` and the forest follows. Areas are probabilities.${exact}`]);
    this.caption.hidden = Boolean(why);
    for (const c of [this.cFocus, this.cFront]) c.clearRect(0, 0, this.W, this.height);
    if (!app.canHold) this.cBundle.clearRect(0, 0, this.W, this.height);
    if (!app.canHold) { for (const path of Object.values(this.density)) path.setAttribute("d", ""); return; }
    const u = Array.from({ length: SAMPLES + 1 }, (_, k) => k / SAMPLES), along = app.along(u);
    this.lines = { u, mu: along.mu, row: new Array(app.J) };
    for (let i = 0; i < app.J; i++) this.lines.row[i] = along.row(i).mean;
    const arrived = this.lines.row.map(v => v[SAMPLES]), near = (v, i) => !Number.isFinite(v) || Math.abs(this.Y(v) - this.Y(this.arrived[i])) < 0.5;
    if (!arrived.every(near)) { this.arrived = arrived; this.drawStill(); }
    this.drawDensities();
    this.bundleWhenDue();
    this.marked = -1;
  }

  drawDensities() {
    const D = this.densities();
    this.plausible = null;
    this.priorKey.style.display = D && D.prior ? "" : "none";
    if (!D) { for (const path of Object.values(this.density)) path.setAttribute("d", ""); return; }
    const { d0, d1, x0, x1 } = this, inside = (a, k) => (D.u[k] > 0.01 ? a[k] : 0), peak = Math.max(...D.post.map((_, k) => inside(D.post, k)));
    const highest = D.prior ? Math.max(...D.prior.map((_, k) => inside(D.prior, k))) : 0, top = 1.04 * Math.max(peak, Math.min(highest, 3 * peak));
    const y = v => (d1 - (d1 - d0) * Math.min(v / top, 1)).toFixed(1), outline = a => a.map((v, k) => `L${this.X(D.u[k]).toFixed(1)} ${y(v)}`).join("").replace("L", "M");
    const post = outline(D.post);
    this.density.post.setAttribute("d", post);
    this.density.area.setAttribute("d", `M${x0} ${d1}V${y(D.post[0])}${post.replace("M", "L")}L${x1} ${d1}Z`);
    this.density.prior.setAttribute("d", D.prior ? outline(D.prior) : "");
    this.plausible = v => Math.sqrt(Math.min(1, D.post[Math.max(0, Math.min(D.post.length - 1, Math.round(v * D.post.length - 0.5)))] / (peak || 1)));
  }

  /** Ink by plausibility: a colour whose opacity follows the posterior density of τ, never below `floor`. */
  ink(context, colour, opacity, floor) {
    const gradient = context.createLinearGradient(this.x0, 0, this.x1, 0);
    for (let k = 0; k <= 48; k++) gradient.addColorStop(k / 48, faded(colour, opacity * (floor + (1 - floor) * (this.plausible ? this.plausible(k / 48) : 1))));
    return gradient;
  }

  /** Hundreds of lines cost more than a frame: while a prior moves they follow a few times a second. */
  bundleWhenDue() {
    clearTimeout(this.bundleTimer);
    const wait = this.app.dense && this.app.posterior.source === "browser" ? (this.bundleAt || 0) + BUNDLE_REST - performance.now() : 0;
    if (wait > 0) this.bundleTimer = setTimeout(() => this.drawBundle(), wait);
    else this.drawBundle();
  }

  drawBundle() {
    this.bundleAt = performance.now();
    this.cBundle.clearRect(0, 0, this.W, this.height);
    const { app, cBundle: c } = this, { J, dense, colours } = app, { u, mu, row } = this.lines, every = dense ? 4 : 1, byColour = new Map();
    for (let i = 0; i < J; i++) { const name = app.colourName(i); if (!byColour.has(name)) byColour.set(name, []); byColour.get(name).push(i); }
    c.save();
    this.clip(c);
    c.lineJoin = "round";
    for (const [name, members] of byColour) {
      c.strokeStyle = this.ink(c, colours[name], dense ? 0.35 : 0.75, 0.42);
      c.lineWidth = dense ? 0.5 : 1.25;
      c.beginPath();
      for (const i of members) { const v = row[i]; c.moveTo(this.x0, this.Y(v[0])); for (let k = every; k <= SAMPLES; k += every) c.lineTo(this.X(u[k]), this.Y(v[k])); }
      c.stroke();
    }
    if (Number.isFinite(mu[0])) {
      c.strokeStyle = this.ink(c, colours.ink, 1, 0.42); c.lineWidth = 1.25; c.setLineDash([4, 3]);
      c.beginPath(); mu.forEach((v, k) => c.lineTo(this.X(u[k]), this.Y(v))); c.stroke();
    }
    c.restore();
  }

  clip(c) {
    c.beginPath();
    c.rect(this.x0, this.y0 - 3, this.x1 - this.x0 + 1, this.y1 - this.y0 + 6);
    c.clip();
  }

  /** The focused unit's line, and the middle half of its θ given τ. */
  drawFocus() {
    const { app, cFocus: c } = this, i = app.focus, name = app.colourName(i), colour = app.colours[name], u = Array.from({ length: BAND_SAMPLES + 1 }, (_, k) => k / BAND_SAMPLES);
    c.clearRect(0, 0, this.W, this.height);
    c.save();
    this.clip(c);
    const { mean, sd } = app.along(u).row(i);
    c.fillStyle = this.ink(c, colour, 0.17, 0);
    c.beginPath();
    u.forEach((v, k) => c.lineTo(this.X(v), this.Y(mean[k] + Z50 * sd[k])));
    for (let k = BAND_SAMPLES; k >= 0; k--) c.lineTo(this.X(u[k]), this.Y(mean[k] - Z50 * sd[k]));
    c.fill();
    c.strokeStyle = colour; c.lineWidth = 2.25; c.lineJoin = "round";
    c.beginPath(); this.lines.row[i].forEach((v, k) => c.lineTo(this.X(this.lines.u[k]), this.Y(v))); c.stroke();
    c.restore();
    this.ends.forEach((node, k) => { node.classList.toggle("on", k === i); node.style.fill = k === i ? `var(--ppx-${name === "accent" ? "accent" : "ink"})` : ""; });
    if (this.far) { const end = this.arrived[i], way = this.leaves(end); setText(this.far, way + shortened(app.data.units.label[i], this.W - this.x1 - 9 - (way ? 13 : 0))); setAttribute(this.far, "y", (this.edge(end) + 4).toFixed(1)); }
  }

  /* ---- every frame ---- */

  render() {
    const { app, cFront: c } = this;
    if (!app.canHold || !this.lines) return;
    if (this.marked !== app.focus) { this.marked = app.focus; this.drawFocus(); }
    const u = app.share(app.tau), x = this.X(u), said = spread(app.tau, app.units.c);
    this.playhead.style.transform = `translateX(${x}px)`;
    setRuns(this.value, app.averaged ? ["drag ", [app.symbol, "maths"]] : [[app.symbol, "maths"], ` = ${said}`]);
    const text = this.value.textContent;
    if (this.pillText === null || this.pillText.length !== text.length) { this.pillText = text; this.pillWidth = this.pill.offsetWidth; }
    const shift = Math.max(this.x0 - x - 10, Math.min(this.x1 - x + 10 - this.pillWidth, -this.pillWidth / 2));
    this.pill.style.transform = `translateX(${shift}px)`;
    setAttribute(this.pill, "aria-valuenow", (100 * u).toFixed(1));
    const { c: typical } = app.units, pooled = app.tau === Infinity ? 0 : typical ** 2 / (typical ** 2 + app.tau ** 2);
    setAttribute(this.pill, "aria-valuetext", `${app.data.model.spread.spoken} ${said === "∞" ? "infinite" : said}, typical ${app.data.words.one} pooled ${Math.round(100 * pooled)} per cent`);
    c.clearRect(0, 0, this.W, this.height);
    if (app.averaged) return;
    const disc = (i, r) => { c.beginPath(); c.arc(x, this.Y(app.at.mean[i]), r, 0, 2 * Math.PI); c.fill(); };
    for (let i = 0; i < app.J; i++) if (i !== app.focus) { c.fillStyle = app.colour(i); disc(i, app.dense ? 1.3 : 3.4); }
    c.fillStyle = app.colour(app.focus); c.strokeStyle = app.colours.paper; c.lineWidth = 1.5;
    disc(app.focus, 5);
    c.stroke();
  }

  /* ---- the hand ---- */

  listen() {
    const { app, stage, scrub, pill } = this;
    const at = event => {
      const u = (event.clientX - stage.getBoundingClientRect().left - this.x0) / (this.x1 - this.x0);
      return u <= 0.006 ? 0 : u >= 0.994 ? Infinity : app.spreadOf(u);
    };
    let held = null;
    for (const target of [scrub, pill]) {
      target.addEventListener("pointerdown", event => {
        if (event.button || !app.canHold) return;
        held = event.pointerId;
        target.setPointerCapture(held);
        app.setHover(-1);
        if (target === scrub) app.setTau(at(event));
      });
      target.addEventListener("pointermove", event => {
        if (held === event.pointerId) app.setTau(at(event));
        else if (target === scrub && event.pointerType !== "touch") app.setHover(this.nearest(event));
      });
      for (const name of ["pointerup", "pointercancel"]) target.addEventListener(name, () => { held = null; });
    }
    scrub.addEventListener("pointerleave", () => { if (held === null) app.setHover(-1); });
    pill.addEventListener("keydown", event => {
      const step = { ArrowRight: 0.01, ArrowUp: 0.01, ArrowLeft: -0.01, ArrowDown: -0.01, PageUp: 0.1, PageDown: -0.1 }[event.key];
      if (step) {
        const u = Math.max(0, Math.min(1, app.share(app.tau) + step * (event.shiftKey ? 5 : 1)));
        app.setTau(u > 0.995 ? Infinity : u < 1e-9 ? 0 : app.spreadOf(u));
      } else if (event.key === "Home") app.setTau(0);
      else if (event.key === "End") app.setTau(Infinity);
      else if (event.key === "Escape") app.setAveraged(true);
      else return;
      event.preventDefault();
    });
  }

  /** The unit whose line passes nearest to the pointer, or -1. */
  nearest(event) {
    const box = this.stage.getBoundingClientRect(), y = event.clientY - box.top, u = (event.clientX - box.left - this.x0) / (this.x1 - this.x0);
    if (!this.lines || y < this.y0 - 4 || y > this.y1 + 4 || u < 0 || u > 1) return -1;
    const t = u * SAMPLES, k = Math.min(SAMPLES - 1, Math.floor(t));
    let best = -1, least = this.app.dense ? 4 : 9;
    this.lines.row.forEach((v, i) => {
      const gap = Math.abs(this.Y(v[k] + (v[k + 1] - v[k]) * (t - k)) - y);
      if (gap < least) { least = gap; best = i; }
    });
    return best;
  }
}

function shortened(text, width) {
  const room = Math.max(3, Math.floor(width / 6.4));
  return text.length > room ? `${text.slice(0, room - 1)}…` : text;
}

function powerOfTen(error) {
  const digits = "⁰¹²³⁴⁵⁶⁷⁸⁹", k = Math.max(-12, Math.ceil(Math.log10(error)));
  return k >= 0 ? short(error, 1) : `10⁻${[...String(-k)].map(d => digits[d]).join("")}`;
}
