/** The prior panel: family and numbers of each prior, its density beside the posterior's, and what it says in words. */
import { el, setAttribute, setText, svg, tip } from "./dom.js";
import { distribution, locationDensity, scaleLogDensity } from "./engine.js";
import { FAMILIES } from "./families.js";
import { capital, MEANING, meaningOfB, multiples, NBSP, niceStep, percent, readNumber, rough, roughRange, written } from "./format.js";
import { problems, rangeProblem } from "./validity.js";

const HEIGHT = 40, POINTS = 160, BINS = 20, TICKS = 1000;

export class PriorsPart {
  constructor(app) {
    this.app = app;
    const { data } = app;
    this.pinWords = el("span", {});
    this.pinMark = svg("svg", { width: 24, height: 8, "aria-hidden": "true" }, svg("path", { d: "M0 4h24", class: "ghost-line" }), svg("circle", { cx: 12, cy: 4, r: 3.5, class: "ghost-mark" }));
    this.pin = el("button", { type: "button", class: "link pin", title: "keep this picture in grey while you change the priors", onclick: () => app.pin(!app.ghost) }, this.pinMark, this.pinWords);
    const name = `preset-${app.serial++}`;
    this.presets = data.presets.map(preset => {
      const input = el("input", { type: "radio", name, value: preset.id, onchange: () => app.usePreset(app.data.presets.find(p => p.id === preset.id)) });
      return { preset, input, node: el("label", {}, input, el("span", {}, preset.label)) };
    });
    this.message = el("p", { class: "message", role: "status" });
    this.note = el("p", { class: "words note" });
    this.blocks = data.priors.map(prior => new PriorBlock(app, prior.param));
    this.pooling = new PoolingBlock(app);
    this.node = el("section", { class: "priors-part", "aria-label": "Priors" },
      el("div", { class: "head" }, el("h2", { class: "fig-title" }, "Priors, before any data"), this.pin),
      ...(this.presets.length ? [el("div", { class: "seg presets", role: "radiogroup", "aria-label": "Presets" }, ...this.presets.map(p => p.node))] : []),
      this.message, ...this.blocks.map(b => b.node), this.pooling.node, this.note);
  }

  layout() { for (const block of [...this.blocks, this.pooling]) block.layout(this.app.rightWidth); }

  refresh() {
    const { app } = this, chosen = app.data.presets.find(preset => sameAs(app, preset));
    for (const { preset, input } of this.presets) input.checked = Boolean(chosen) && preset.id === chosen.id;
    setText(this.pinWords, app.ghost ? "Unpin" : "Pin picture");
    // Without a forest there is no picture to keep.
    this.pin.hidden = !app.data.parts.includes("forest");
    this.pinMark.style.display = app.ghost ? "" : "none";
    setAttribute(this.pin, "aria-pressed", Boolean(app.ghost));
    setText(this.message, app.data.message || "");
    this.message.hidden = !app.data.message;
    setText(this.note, app.data.note);
    this.note.hidden = !app.data.note;
    for (const block of [...this.blocks, this.pooling]) block.refresh();
  }
}

function sameAs(app, preset) {
  const { id } = app.data.model;
  // Of models that differ in their priors alone; another keeps its hierarchy under every preset.
  if (preset.model && preset.model !== id && app.data.presets.some(other => other.model === id)) return false;
  return Object.entries(preset.priors).every(([name, p]) => app.priors[name] && app.priors[name].family === p.family && p.numbers.every((v, k) => Math.abs(v - app.priors[name].numbers[k]) <= 1e-9 * Math.max(1, Math.abs(v))));
}

/** One prior: symbol, family, sketch, numbers, words, and the numbers found from a range. */
class PriorBlock {
  constructor(app, param) {
    this.app = app;
    this.param = param;
    const given = this.given, id = `range-${param}-${app.serial++}`;
    this.family = el("select", { "aria-label": `Family of the prior on ${param}`, onchange: () => this.chooseFamily(this.family.value) }, ...given.families.map(f => el("option", { value: f.family }, FAMILIES[f.family].label)));
    this.sketch = svg("svg", { class: "sketch", height: 56, role: "img", "aria-label": `Density of ${given.words}: prior and posterior` });
    this.knobs = el("div", { class: "knobs" });
    this.words = el("span", {});
    this.toggle = el("button", { type: "button", class: "icon-button", "aria-expanded": "false", "aria-controls": id, "aria-label": `Set the prior on ${param} from a range`, title: `Set from a 90${NBSP}% range`, onclick: () => this.open(this.range.hidden) }, rangeIcon());
    this.problem = el("p", { class: "problem", id: `${id}-number`, role: "status", hidden: true });
    this.answer = el("p", { class: "words answer", id: `${id}-answer`, role: "status", hidden: true });
    this.low = rangeField(`Lower end for ${param}`, this.answer.id);
    this.high = rangeField(`Upper end for ${param}`, this.answer.id);
    this.range = el("form", { class: "range", id, hidden: true, onsubmit: event => { event.preventDefault(); this.elicit(); } }, `90${NBSP}% between`, this.low, "and", this.high, el("button", { type: "submit", class: "small" }, "Set"));
    this.node = el("div", { class: "prior" },
      el("div", { class: "prior-head" }, el("h3", {}, tip("span", "symbol", given.symbol, meaning(app, param)), given.words), this.family),
      this.sketch, this.knobs, this.problem, el("p", { class: "words" }, this.toggle, this.words), this.range, this.answer);
  }

  get given() { return this.app.data.priors.find(p => p.param === this.param); }
  get prior() { return this.app.priors[this.param]; }

  layout(width) {
    this.width = width;
    this.sketch.setAttribute("viewBox", `0 0 ${width} 56`);
    this.drawKnobs();
  }

  chooseFamily(family) {
    const offered = this.given.families.find(f => f.family === family);
    this.draft = null;
    this.app.setPrior(this.param, { family, numbers: [...offered.numbers] });
    this.drawKnobs();
  }

  open(open) {
    this.range.hidden = !open;
    setAttribute(this.toggle, "aria-expanded", open);
    if (open) this.low.focus();
  }

  elicit() {
    const low = readNumber(this.low.value), high = readNumber(this.high.value), { family } = this.prior;
    this.refused = rangeProblem(family, low, high, this.given.positive);
    if (!this.refused) {
      this.draft = null;
      this.app.clearProblem(this.param);
      this.app.trigger("elicit", { param: this.param, family, low, high, mass: 0.9 });
    }
    this.showAnswer();
  }

  /** What came of the range: refused here, or answered by Python. */
  showAnswer() {
    const given = this.app.data.answer, answer = given && given.param === this.param ? given : null, wrong = this.refused || (answer && answer.error);
    setText(this.answer, this.refused || (answer ? answer.text : ""));
    this.answer.hidden = !this.answer.textContent;
    this.answer.classList.toggle("problem", Boolean(wrong));
    for (const field of [this.low, this.high]) setAttribute(field, "aria-invalid", Boolean(wrong));
  }

  /** Number k was changed: a prior if all numbers together are one, else a draft that waits here. */
  change(k, value, text) {
    const { family, numbers } = this.prior, from = this.draft || { numbers, texts: numbers.map(v => written(v)) }, put = (list, item) => list.map((v, j) => (j === k ? item : v));
    const draft = { numbers: put(from.numbers, value), texts: put(from.texts, text) };
    draft.lines = problems(family, draft.numbers, this.given.positive);
    if (draft.lines.some(Boolean)) {
      this.draft = draft;
      this.app.setProblem(this.param);
    } else {
      this.draft = null;
      this.app.setPrior(this.param, { family, numbers: draft.numbers });
    }
    this.showNumbers();
  }

  drawKnobs() {
    const { family } = this.prior, offered = this.given.families.find(f => f.family === family);
    this.drawn = family;
    this.controls = FAMILIES[family].numbers.map((number, k) => {
      const range = offered && offered.controls[k], label = `${number.label} of the prior on ${this.param}`;
      const slider = range && el("input", { type: "range", min: range.log ? 0 : range.min, max: range.log ? TICKS : range.max, step: range.log ? 1 : range.step, "aria-label": label,
        oninput: () => { const value = fromSlider(range, +slider.value); this.change(k, value, written(value)); } });
      const field = el("input", { type: "text", inputmode: "decimal", class: "number", "aria-label": `${label}, exact`, "aria-describedby": this.problem.id,
        onchange: () => this.change(k, readNumber(field.value), field.value), onkeydown: event => { if (event.key === "Enter") { event.preventDefault(); field.blur(); } } });
      return { range, slider, field, node: el("div", { class: FAMILIES[family].numbers.length === 1 ? "knob wide" : "knob" }, el("span", { "aria-hidden": "true" }, number.label), field, slider || "") };
    });
    this.knobs.replaceChildren(...this.controls.map(c => c.node));
    this.showNumbers();
  }

  showNumbers() {
    if (this.draft && !this.app.problems.has(this.param)) this.draft = null;
    const { draft } = this, { numbers } = draft || this.prior;
    this.controls.forEach(({ range, slider, field }, k) => {
      const text = draft ? draft.texts[k] : written(numbers[k]), root = field.getRootNode();
      setAttribute(field, "aria-invalid", Boolean(draft && draft.lines[k]));
      if (root.activeElement !== field && field.value !== text) field.value = text;
      field.style.width = `${Math.max(64, 7.5 * text.length + 10)}px`;
      if (slider && root.activeElement !== slider && Number.isFinite(numbers[k])) slider.value = toSlider(range, numbers[k]);
      if (slider) setAttribute(slider, "aria-valuetext", text);
    });
    setText(this.problem, draft ? draft.lines.find(Boolean) : "");
    this.problem.hidden = !draft;
    this.node.classList.toggle("invalid", Boolean(draft));
  }

  refresh() {
    const { app } = this, { family } = this.prior;
    if (this.drawn !== family) this.drawKnobs();
    else this.showNumbers();
    this.showAnswer();
    if (![...this.family.options].some(o => o.value === family)) this.family.append(el("option", { value: family }, FAMILIES[family].label));
    this.family.value = family;
    if (!app.posterior) return this.drawOther();
    if (this.param === "mu") this.drawLocation();
    else if (this.param === this.app.data.model.spread.param) this.drawScale();
    else this.drawOther();
  }

  unit() { const { unit } = this.app.data.words; return unit && !this.given.unitless ? ` ${unit}` : ""; }

  /** On the forest's own scale. */
  drawLocation() {
    const { app } = this, { family, numbers } = this.prior, axis = app.effectAxis || around(app);
    const both = app.tauDistributions(), post = both && both.mixture ? x => locationDensity(both.mixture, x) : this.curves();
    const top = Array.isArray(post) ? Math.max(...post.flatMap(curve => curve.y)) : post ? post(app.posterior.mu.mean) : 1, log = FAMILIES[family].log, [lower, upper] = FAMILIES[family].support(numbers);
    const prior = FAMILIES[family].proper ? x => (x < lower || x > upper ? 0 : Math.exp(log(x, numbers))) : () => 0.12 * top;
    drawSketch(this.sketch, this.width, [axis.lo, axis.hi], sparse(multiples(axis.lo, axis.hi, axis.step)), prior, post);
    if (!FAMILIES[family].proper) return setText(this.words, "Every value is as likely as any other.");
    const known = lower >= 0 && upper === Infinity ? positive(this.prior, app.units.c) : null, [a, b] = known ? [known.quantile(0.05), known.quantile(0.95)] : lineQuantiles(family, numbers, [0.05, 0.95]);
    setText(this.words, `90${NBSP}% between ${roughRange(a, b)}${this.unit()}.`);
  }

  drawScale() {
    const { app } = this, prior = positive(this.prior, app.units.c), both = app.tauDistributions(), given = app.posterior.density;
    const wanted = Math.max(3.6 * app.units.c, Math.min(36 * app.units.c, prior ? 1.25 * prior.quantile(0.75) : 0)), step = niceStep(wanted / 4), hi = Math.ceil(wanted / step - 0.2) * step;
    const post = both ? both.post.density : given ? t => atShare(given, app.share(t)) * app.units.c / (t + app.units.c) ** 2 : null;
    drawSketch(this.sketch, this.width, [0, hi], multiples(0, hi, step), prior ? t => prior.density(Math.max(t, 1e-6 * hi)) : null, post ? t => post(Math.max(t, 1e-6 * hi)) : null);
    setText(this.words, prior ? `Half below ${rough(prior.quantile(0.5))}, 90${NBSP}% below ${rough(prior.quantile(0.9))}${this.unit()}.` : "Every spread is as likely as any other.");
  }

  /** The posterior as Python knows it, where the browser does not solve the model. */
  curves() {
    const { densities } = this.app.posterior || {};
    return (densities && densities[this.param]) || null;
  }

  /** Which of several curves is which: their tops, from left to right. */
  named(curves) {
    if (!curves || !curves[0].label) return "";
    const peak = ({ x, y }) => x[y.indexOf(Math.max(...y))], names = [...curves].sort((a, b) => peak(a) - peak(b)).map(curve => curve.label);
    return names.length > 1 ? ` Posteriors, from the left: ${names.join(", ")}.` : ` Posterior: ${names[0]}.`;
  }

  drawOther() {
    const post = this.curves(), named = this.named(post);
    const { family } = this.prior, { support, proper, log } = FAMILIES[family], numbers = this.prior.numbers.map(v => v + (this.given.plus || 0)), [lower, upper] = support(numbers);
    if (!proper) { this.sketch.replaceChildren(); return setText(this.words, "Every value is as likely as any other."); }
    if (lower >= 0) {
      const prior = positive(this.prior, 1), hi = Math.min(upper, prior.quantile(0.98)), step = niceStep(hi / 4);
      drawSketch(this.sketch, this.width, [0, hi], multiples(0, hi, step), t => prior.density(Math.max(t, 1e-6 * hi)), post);
      return setText(this.words, `Half below ${rough(prior.quantile(0.5))}, 90${NBSP}% below ${rough(prior.quantile(0.9))}${this.unit()}.${named}`);
    }
    const [a, b] = lineQuantiles(family, numbers, [0.05, 0.95]), lo = 1.5 * a - 0.5 * b, hi = 1.5 * b - 0.5 * a;
    drawSketch(this.sketch, this.width, [lo, hi], multiples(lo, hi, niceStep((hi - lo) / 5)), x => (x < lower || x > upper ? 0 : Math.exp(log(x, numbers))), post);
    setText(this.words, `90${NBSP}% between ${roughRange(a, b)}${this.unit()}.${named}`);
  }
}

function meaning(app, param) {
  // Beside covariates μ is an intercept, and the panel's own words say so.
  if (param === app.data.model.spread.param) return app.data.model.spread.meaning;
  return param === "mu" && app.data.priors.some(p => p.param === "beta") ? "" : MEANING[param] || "";
}

/** The induced prior on pooling: what the prior on τ says about B of a typical unit. */
class PoolingBlock {
  constructor(app) {
    this.app = app;
    const { words } = app.data;
    this.sketch = svg("svg", { class: "sketch", height: 60, role: "img", "aria-label": "Distribution of the pooling factor: prior and posterior" });
    this.words = el("p", { class: "words" });
    this.node = el("div", { class: "prior" }, el("h3", {}, tip("span", "symbol", "B", meaningOfB(app.data.model.spread)), el("span", { title: `A typical ${words.one} has the median standard error` }, `how far a typical ${words.one} is pooled`)), this.sketch, this.words);
  }

  layout(width) {
    this.width = width;
    this.sketch.setAttribute("viewBox", `0 0 ${width} 60`);
  }

  refresh() {
    const { app, width: W } = this, c = app.units.c, both = this.cdfs(), why = both ? "" : app.data.model.why_no_pooling;
    this.node.hidden = !both && !why;
    this.sketch.style.display = both ? "" : "none";
    if (!both) return setText(this.words, why && `${capital(why)}.`);
    const spreadAt = B => (B <= 0 ? Infinity : c * Math.sqrt(1 / B - 1)), bins = F => Array.from({ length: BINS }, (_, k) => F(spreadAt(k / BINS)) - F(spreadAt((k + 1) / BINS)));
    const post = bins(both.post), prior = both.prior && bins(both.prior), top = 1.03 * Math.max(...post, ...(prior || []));
    const x = k => (W * k / BINS).toFixed(1), y = v => (HEIGHT - (HEIGHT - 2) * v / top).toFixed(1), stairs = v => v.map((h, k) => `${k ? "L" : "M"}${x(k)} ${y(h)}L${x(k + 1)} ${y(h)}`).join("");
    this.sketch.replaceChildren(svg("path", { d: `${stairs(post)}L${W} ${HEIGHT}L0 ${HEIGHT}Z`, class: "post-area" }), svg("path", { d: stairs(post), class: "post-line" }), ...(prior ? [svg("path", { d: stairs(prior), class: "prior-line" })] : []),
      svg("path", { d: `M0 ${HEIGHT + 0.5}H${W}M.5 ${HEIGHT}v4M${W / 2} ${HEIGHT}v4M${W - 0.5} ${HEIGHT}v4`, class: "axis-line" }),
      ...[[0, "start", "0, own value"], [W / 2, "middle", "½"], [W, "end", "pooled mean, 1"]].map(([at, anchor, text]) => svg("text", { x: at, y: HEIGHT + 16, "text-anchor": anchor }, text)));
    const after = percent(both.post(c));
    setText(this.words, both.prior ? `Over half pooled: ${percent(both.prior(c))} before data, ${after} after.` : `Over half pooled: ${after} after data.`);
  }

  cdfs() {
    const { app } = this, both = app.tauDistributions();
    if (!app.posterior || !app.posterior.hasPooling) return null;
    if (both) return { prior: both.prior && both.prior.cdf, post: both.post.cdf };
    const given = app.posterior.density;
    if (!given) return null;
    const cumulative = a => { const out = [0]; a.forEach((v, k) => out.push(out[k] + v / a.length)); return t => { const v = app.share(t) * a.length, k = Math.min(a.length - 1, Math.floor(v)); return (out[k] + (out[k + 1] - out[k]) * (v - k)) / out[a.length]; }; };
    return { prior: given.prior && cumulative(given.prior), post: cumulative(given.post) };
  }
}

/** Prior as an outline, posterior filled: the grammar of every density. The posterior is a function, or curves. */
function drawSketch(sketch, width, [lo, hi], ticks, prior, post) {
  const x = v => width * (v - lo) / (hi - lo), at = Array.from({ length: POINTS + 1 }, (_, k) => lo + (hi - lo) * k / POINTS), inside = t => t >= lo && t <= hi;
  const filled = Array.isArray(post) ? post.map(({ x, y }) => { const kept = [...x.keys()].filter(k => inside(x[k])); return { x: kept.map(k => x[k]), y: kept.map(k => y[k]) }; }).filter(curve => curve.x.length > 1) : post ? [{ x: at, y: at.map(post) }] : [];
  const a = prior && at.map(prior), b = filled.flatMap(curve => curve.y.slice(1)), peak = Math.max(...b), highest = a ? Math.max(...a.slice(1)) : 0, top = 1.03 * (b.length ? Math.max(peak, Math.min(highest, 3 * peak)) : highest || 1);
  const y = v => (HEIGHT - (HEIGHT - 2) * Math.min(1, v / top)).toFixed(1), path = (t, v) => t.map((s, k) => `${k ? "L" : "M"}${x(s).toFixed(1)} ${y(v[k])}`).join(""), several = filled.length > 1 ? " several" : "";
  const anchor = t => (x(t) < 12 ? "start" : x(t) > width - 12 ? "end" : "middle");
  sketch.replaceChildren(...filled.flatMap(curve => {
    const line = path(curve.x, curve.y), end = x(curve.x[curve.x.length - 1]).toFixed(1);
    return [svg("path", { d: `${line}L${end} ${HEIGHT}L${x(curve.x[0]).toFixed(1)} ${HEIGHT}Z`, class: `post-area${several}` }), svg("path", { d: line, class: `post-line${several}` })];
  }), ...(a ? [svg("path", { d: path(at, a), class: "prior-line" })] : []),
    svg("path", { d: `M0 ${HEIGHT + 0.5}H${width}`, class: "axis-line" }),
    ...ticks.flatMap(t => [svg("path", { d: `M${x(t).toFixed(1)} ${HEIGHT}v4`, class: "axis-line" }), svg("text", { x: x(t).toFixed(1), y: HEIGHT + 15, "text-anchor": anchor(t) }, written(t))]));
}

/** Every other tick where they are many, zero among them. */
function sparse(ticks) {
  if (ticks.length <= 7) return ticks;
  const step = 2 * (ticks[1] - ticks[0]);
  return ticks.filter(v => Math.abs(v / step - Math.round(v / step)) < 1e-9);
}

function around({ units }) {
  const lo = Math.min(...units.y) - 2 * units.c, hi = Math.max(...units.y) + 2 * units.c, step = niceStep((hi - lo) / 6);
  return { lo: Math.floor(lo / step) * step, hi: Math.ceil(hi / step) * step, step };
}

function positive(prior, scale) {
  return FAMILIES[prior.family].proper ? distribution(scaleLogDensity(prior), FAMILIES[prior.family].support(prior.numbers), scale) : null;
}

/** Quantiles of a family on the whole line or an interval, from its density. */
function lineQuantiles(family, numbers, probabilities) {
  const { support, log, numbers: declared } = FAMILIES[family], [lower, upper] = support(numbers), number = name => numbers[declared.findIndex(d => d.name === name)];
  const bounded = Number.isFinite(lower) && Number.isFinite(upper), centre = number("mu") ?? 0, scale = number("sigma") ?? 1, N = 4000;
  const value = t => (bounded ? lower + (upper - lower) * (t + 9) / 18 : Math.max(lower, centre + scale * Math.sinh(t))), jacobian = t => (bounded ? (upper - lower) / 18 : scale * Math.cosh(t));
  const cumulative = [0];
  for (let k = 0; k < N; k++) { const t = -9 + 18 * (k + 0.5) / N, x = value(t); cumulative.push(cumulative[k] + Math.exp(log(x, numbers)) * jacobian(t) * 18 / N); }
  return probabilities.map(p => { let k = 0; while (k < N - 1 && cumulative[k + 1] < p * cumulative[N]) k++; return value(-9 + 18 * (k + (p * cumulative[N] - cumulative[k]) / (cumulative[k + 1] - cumulative[k] || 1)) / N); });
}

function atShare({ post }, u) { return post[Math.max(0, Math.min(post.length - 1, Math.floor(u * post.length)))]; }

const toSlider = (range, v) => (range.log ? Math.round(TICKS * Math.log(Math.max(v, range.min) / range.min) / Math.log(range.max / range.min)) : v);
const fromSlider = (range, v) => (range.log ? +(range.min * (range.max / range.min) ** (v / TICKS)).toPrecision(3) : v);

function rangeField(label, answer) { return el("input", { type: "text", inputmode: "decimal", class: "number", "aria-label": label, "aria-describedby": answer }); }

function rangeIcon() { return svg("svg", { width: 14, height: 10, "aria-hidden": "true" }, svg("path", { d: "M1 1v8M13 1v8M1 5h12", class: "icon-line" })); }
