/** The explorer: one study held in the browser, its parts, and what passes between them and Python. */
import { el, isDark } from "./dom.js";
import {
  blendViews, conditional, copyView, emptyView, locationAt, locationPrior, effectAlong, prepare, scalePosterior, scalePrior, setRow, solve, weightsAt,
} from "./engine.js";
import { StoryPart } from "./story.js";
import { ForestPart } from "./forest.js";
import { TauPart } from "./tau_panel.js";
import { PriorsPart } from "./priors.js";
import { PoolingsPart } from "./poolings.js";
import { FitPart } from "./fit.js";

const LEFT_PARTS = { story: StoryPart, forest: ForestPart, tau: TauPart };
const RIGHT_PARTS = { priors: PriorsPart, poolings: PoolingsPart, fit: FitPart };
const WIDE = 900, RIGHT_WIDTH = 288, GUTTER = 44, NARROW = 520;
const REST = 150;            // ms of stillness before Python hears of priors
const SELECT_REST = 250;
const TWEEN = 220;           // ms from one answer to the other, so that the eye can follow
export const DENSE = 40;     // more units than this are drawn as a batched caterpillar
const TOKENS = ["paper", "panel", "ink", "ink-2", "ink-3", "raw", "raw-line", "accent", "truth", "warn", "g1", "g2", "g3", "g4", "g5", "g6", "g7", "g8"];

const priorsKey = priors => JSON.stringify(Object.keys(priors).sort().map(name => [name, priors[name].family, priors[name].numbers]));

class Explorer {
  constructor(root) {
    this.root = root;
    root.explorer = this;
    this.parts = [];
    this.averaged = true;
    this.tau = 0;
    this.hover = -1;
    this.selected = 0;
    this.sorting = "raw";
    this.ghost = null;
    this.problems = new Set();  // parameters whose numbers, as typed, are no prior
    this.width = 0;
    this.frame = 0;
    this.serial = Date.now();
    this.sent = new Map();      // what Python was told and has not answered yet
    this.timers = {};
    this.waiting = {};
    this.cost = { frame: 0, solve: 0 };
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(root);
  }

  destroy() {
    this.observer.disconnect();
    cancelAnimationFrame(this.frame);
    cancelAnimationFrame(this.tween);
    Object.values(this.timers).forEach(clearTimeout);
  }

  /* ---- from Python ---- */

  update(data, channel) {
    this.channel = channel;
    const before = this.data, fresh = !before || before.serial !== data.serial || !sameUnits(before, data);
    this.data = data;
    if (fresh) this.takeUnits(data);
    this.takePriors(data, before, fresh);
    this.takeServer(data);
    if (!before || before.focus !== data.focus || fresh) {
      const place = data.units.label.indexOf(data.focus);
      if (place >= 0 && data.focus !== this.toldUnit) this.selected = place;
    }
    const structure = JSON.stringify([data.parts, data.units.groups, data.model.id, data.priors.map(p => [p.param, p.families.map(f => f.family)]), data.presets.map(p => p.id)]);
    if (structure !== this.structure || fresh) { this.structure = structure; this.build(); }
    this.theme();
    this.resolve();
    if (fresh) this.order = this.sorted();
    if (this.width) { if (fresh || !this.drawn) this.layout(); else this.refresh(); }
    else this.resize();
  }

  takeUnits({ units }) {
    const J = units.label.length;
    this.units = prepare(units.effect, units.se);
    // Of all units, where only some are listed.
    if (units.typical) this.units.c = units.typical;
    this.J = J;
    this.dense = J > DENSE;
    this.at = emptyView(J);
    this.shown = emptyView(J);
    this.averaged = true;
    this.touched = false;
    this.hover = -1;
    this.selected = 0;
    this.ghost = null;
    this.drawn = false;
    this.posterior = null;
    this.toldUnit = null;
    this.sorting = "raw";
    cancelAnimationFrame(this.tween);
    this.tweening = false;
    Object.values(this.timers).forEach(clearTimeout);
  }

  /** Python's priors replace the hand's only where they are news: not an answer to what the hand sent. */
  takePriors(data, before, fresh) {
    const given = Object.fromEntries(data.priors.map(p => [p.param, { family: p.family, numbers: p.numbers }])), key = priorsKey(given);
    const answered = this.sent.has(key);
    if (answered) { for (const known of [...this.sent.keys()]) { this.sent.delete(known); if (known === key) break; } }
    const news = fresh || !this.priors || (key !== this.givenKey && !answered);
    this.givenKey = key;
    if (!news) return;
    this.priors = given;
    this.sent.clear();
    this.problems.clear();
    clearTimeout(this.timers.priors);
    if (fresh || (before && before.model.id !== data.model.id)) this.touched = false;
  }

  takeServer(data) {
    const p = data.posterior;
    this.server = null;
    if (!p) return;
    const view = emptyView(this.J);
    for (const field of ["mean", "lo95", "lo50", "hi50", "hi95"]) view[field].set(p[field]);
    if (p.pooling) view.B.set(p.pooling); else view.B.fill(NaN);
    view.m = p.mu && p.mu.mean !== null ? p.mu.mean : NaN;
    this.server = {
      key: priorsKey(p.priors), view, sd: p.sd, own: p.own, others: p.others, fromPrior: p.prior, mu: p.mu, tau: p.tau, error: p.error, density: p.tau_density, densities: p.densities,
      centre: p.tau ? p.tau.mean / (p.tau.mean + this.units.c) : NaN, hasPooling: Boolean(p.pooling), groupMeans: p.group_means, source: "server",
    };
  }

  /* ---- the posterior that is shown ---- */

  get live() { return this.data.model.engine === "browser"; }
  get curves() { return this.live ? null : this.data.posterior && this.data.posterior.curves; }
  /** Whether τ can be held: the posterior given τ is known for every τ. */
  get canHold() { return !this.data.model.why_no_tau && Boolean(this.live ? this.location : this.curves); }

  resolve() {
    const key = priorsKey(this.priors);
    this.location = this.live && this.priors.mu && this.priors.tau ? locationPrior(this.priors.mu) || this.location : null;
    let found = this.server && this.server.key === key ? this.server : null;
    if (!found && this.live) {
      if (this.solved && this.solved.key === key && this.solved.units === this.units) found = this.solved;
      else {
        const start = performance.now(), result = solve(this.units, this.priors, this.dense ? 1e-6 : 1e-11);
        this.cost.solve = performance.now() - start;
        if (result && !result.improper && result.view.mean.every(Number.isFinite)) found = this.solved = { ...result, key, units: this.units, hasPooling: true, source: "browser" };
      }
    }
    // A picture of other priors that stays is greyed; one that was refused for good is told in words alone.
    this.updating = !found && (Boolean(this.data.stale) || !this.data.message);
    if (found) this.posterior = found;
    else if (!this.posterior) this.posterior = this.server;
    if (!found) return;
    this.distributions = null;
    if (!this.touched && this.posterior.tau) this.tau = Number.isFinite(this.posterior.tau.mean) ? this.posterior.tau.mean : this.units.c;
    if (!this.canHold) { this.averaged = true; this.root.classList.add("averaged"); }
    else this.hold(this.tau, this.at);
  }

  /** Prior and posterior distribution of τ, made when first asked for. */
  tauDistributions() {
    if (!this.distributions && this.live && this.location && this.posterior) {
      const source = this.posterior.logLikelihood ? this.posterior : this.solveFor();
      this.distributions = source && { prior: scalePrior(this.units, this.priors.tau), post: scalePosterior(this.units, this.priors.tau, source.logLikelihood), mixture: source.mixture };
    }
    return this.distributions;
  }

  /** The browser's own solution beside the server's, for what only it draws (density of μ, probabilities of B). */
  solveFor() {
    const key = priorsKey(this.priors);
    if (!this.solved || this.solved.key !== key || this.solved.units !== this.units) {
      const result = solve(this.units, this.priors, 1e-2);
      this.solved = result && !result.improper ? { ...result, key: `${key} rough`, units: this.units } : null;
    }
    return this.solved;
  }

  /** The posterior given τ, into `out`. */
  hold(tau, out) {
    if (this.curves) return this.holdCurves(tau, out);
    return conditional(this.units, this.location, tau, out);
  }

  holdCurves(tau, out) {
    const { theta_mean: mean, theta_sd: sd, mu_mean: mu, pooling } = this.curves, { k, share } = this.place(tau), s2 = this.units.s2;
    const mix = (a, b) => a + share * (b - a);
    out.m = mu ? mix(mu[k], mu[k + 1]) : NaN;
    for (let i = 0; i < this.J; i++) {
      const B = !this.posterior.hasPooling ? NaN : pooling ? mix(pooling[k][i], pooling[k + 1][i]) : s2[i] / (s2[i] + tau * tau);
      setRow(out, i, tau === Infinity && this.posterior.hasPooling ? 0 : B, mix(mean[k][i], mean[k + 1][i]), mix(sd[k][i], sd[k + 1][i]));
    }
    return out;
  }

  place(tau) {
    const { u } = this.curves, v = this.share(tau);
    let k = 0;
    while (k < u.length - 2 && u[k + 1] < v) k++;
    return { k, share: Math.max(0, Math.min(1, (v - u[k]) / (u[k + 1] - u[k]))) };
  }

  /** E and sd of θ_i, and E μ, along the τ axis: arrays over the shares `u`. */
  along(u) {
    if (this.curves) return { mu: u.map(v => this.curveAt(v, (c, k) => (c.mu_mean ? c.mu_mean[k] : NaN))), row: i => ({ mean: u.map(v => this.curveAt(v, (c, k) => c.theta_mean[k][i])), sd: u.map(v => this.curveAt(v, (c, k) => c.theta_sd[k][i])) }) };
    const taus = u.map(v => this.spreadOf(v)), at = taus.map(t => locationAt(this.units, this.location, t));
    return { mu: at.map(a => a.m), row: i => effectAlong(this.units, taus, at, i) };
  }

  curveAt(v, value) {
    const { k, share } = this.place(this.spreadOf(v)), a = value(this.curves, k), b = value(this.curves, k + 1);
    return a + share * (b - a);
  }

  /** Symbol of the spread that the panel moves. */
  get symbol() { return this.data.model.spread.symbol; }

  /** Means of the groups as shown; null where the model has none. */
  groupMeans() {
    const { posterior } = this;
    if (!posterior || !posterior.groupMeans) return null;
    if (this.averaged || !this.curves || !this.curves.group_mean) return posterior.groupMeans;
    const { group_mean: mean } = this.curves, { k, share } = this.place(this.tau);
    return mean[k].map((a, g) => a + share * (mean[k + 1][g] - a));
  }
  groupColour(g) { return this.data.units.groups.length > 1 ? `g${(g % 8) + 1}` : "accent"; }

  /** Share u = τ/(τ + c) and back. */
  share(tau) { return tau === Infinity ? 1 : tau / (tau + this.units.c); }
  spreadOf(u) { return u >= 1 ? Infinity : (this.units.c * u) / (1 - u); }

  target() { return this.averaged ? this.posterior.view : this.at; }
  get focus() { return this.hover >= 0 ? this.hover : this.selected; }

  weights(i) {
    const { own, others, fromPrior } = this.posterior;
    if (!this.averaged && this.location) return weightsAt(this.units, this.location, this.tau, i);
    return this.averaged && own ? { own: own[i], others: others[i], prior: fromPrior[i] } : null;
  }

  /** Token of a unit's colour: its group's; one group alone, like none, takes the accent. */
  colourName(i) {
    const { group, groups } = this.data.units;
    return group && groups && groups.length > 1 ? this.groupColour(group[i]) : "accent";
  }
  colour(i) { return this.colours[this.colourName(i)]; }

  sorted() {
    const { y } = this.units, view = this.posterior && this.posterior.view;
    const key = this.sorting === "moved" && view ? i => Math.abs(view.mean[i] - y[i]) : i => y[i];
    return Array.from({ length: this.J }, (_, i) => i).sort((a, b) => key(b) - key(a) || a - b);
  }

  /* ---- the page ---- */

  build() {
    const make = table => this.data.parts.filter(name => table[name]).map(name => ({ name, part: new table[name](this) }));
    const left = make(LEFT_PARTS), right = make(RIGHT_PARTS), column = (name, parts) => el("div", { class: `column ${name}` }, ...parts.map(p => p.part.node));
    this.parts = [...left, ...right].map(p => p.part);
    this.columns = { left: left.length > 0, right: right.length > 0 };
    this.root.replaceChildren(...(left.length ? [column("left", left)] : []), ...(right.length ? [column("right", right)] : []));
    this.root.classList.toggle("averaged", this.averaged);
    this.problems.clear();
    this.drawn = false;
  }

  resize() {
    const width = Math.round(this.root.clientWidth);
    if (width < 50 || width === this.width || !this.data) return;
    this.width = width;
    if (this.parts.length) this.layout();
  }

  layout() {
    const both = this.columns.left && this.columns.right && this.width >= WIDE;
    this.root.classList.toggle("wide", both);
    this.leftWidth = both ? this.width - RIGHT_WIDTH - GUTTER : this.width;
    this.rightWidth = both ? RIGHT_WIDTH : this.columns.left ? Math.min(this.width, 560) : this.width;
    this.narrow = this.leftWidth < NARROW;
    this.root.classList.toggle("narrow", this.narrow);
    this.drawn = true;
    for (const part of this.parts) part.layout();
    this.refresh();
  }

  /** After a change of posterior, priors, fit, theme or words; not while τ moves. */
  refresh() {
    if (this.posterior && !this.tweening) copyView(this.shown, this.target());
    this.root.classList.toggle("updating", this.updating || this.problems.size > 0);
    for (const part of this.parts) part.refresh();
    this.render();
  }

  render() {
    if (!this.posterior || !this.drawn) return;
    const start = performance.now();
    for (const part of this.parts) if (part.render) part.render();
    this.cost.frame = performance.now() - start;
  }

  invalidate(solved = false) {
    this.dirty = this.dirty || solved;
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      if (this.dirty) { this.dirty = false; this.resolve(); this.refresh(); } else this.render();
    });
  }

  theme() {
    const style = getComputedStyle(this.root), ground = style.getPropertyValue("--st-background-color").trim();
    this.root.dataset.theme = isDark(ground || "#ffffff") ? "dark" : "light";
    const resolved = getComputedStyle(this.root);
    this.colours = Object.fromEntries(TOKENS.map(name => [name, resolved.getPropertyValue(`--ppx-${name}`).trim()]));
  }

  /* ---- the hand ---- */

  setTau(tau) {
    if (!this.canHold) return;
    this.tau = tau;
    this.touched = true;
    this.hold(tau, this.at);
    if (this.averaged) this.setAveraged(false);
    if (!this.tweening) copyView(this.shown, this.at);
    this.invalidate();
  }

  setAveraged(averaged) {
    if (averaged === this.averaged || (!averaged && !this.canHold)) return;
    this.averaged = averaged;
    this.root.classList.toggle("averaged", averaged);
    const from = emptyView(this.J), begin = performance.now(), still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    copyView(from, this.shown);
    cancelAnimationFrame(this.tween);
    this.tweening = true;
    const step = now => {
      const p = still ? 1 : Math.max(0, Math.min(1, (now - begin) / TWEEN));
      blendViews(this.shown, from, this.target(), 1 - (1 - p) ** 3);
      this.tweening = p < 1;
      this.render();
      if (this.tweening) this.tween = requestAnimationFrame(step);
    };
    this.tween = requestAnimationFrame(step);
  }

  setHover(i) {
    if (i === this.hover) return;
    this.hover = i;
    this.invalidate();
  }

  select(i) {
    this.hover = -1;
    this.selected = Math.max(0, Math.min(this.J - 1, i));
    this.invalidate();
    this.later("unit", SELECT_REST, () => {
      this.toldUnit = this.data.units.label[this.selected];
      this.channel.setStateValue("unit", { value: this.toldUnit, nonce: this.serial++ });
    });
  }

  sortBy(sorting) {
    this.sorting = sorting;
    this.order = this.sorted();
    this.layout();
  }

  setProblem(param) {
    this.problems.add(param);
    this.refresh();
  }

  clearProblem(param) {
    if (this.problems.delete(param)) this.refresh();
  }

  setPrior(param, prior) {
    this.problems.delete(param);
    this.priors = { ...this.priors, [param]: prior };
    this.later("priors", REST, () => {
      this.sent.set(priorsKey(this.priors), true);
      this.channel.setStateValue("priors", { value: this.priors, nonce: this.serial++ });
    });
    this.invalidate(true);
  }

  usePreset(preset) {
    clearTimeout(this.timers.priors);
    this.problems.clear();
    const known = Object.keys(preset.priors).every(name => this.priors[name]);
    if (known && (!preset.model || preset.model === this.data.model.id)) {
      this.priors = { ...this.priors, ...preset.priors };
      this.sent.set(priorsKey(this.priors), true);
    }
    this.trigger("preset", { id: preset.id });
    this.invalidate(true);
  }

  pin(on) {
    this.ghost = null;
    if (on) { this.ghost = emptyView(this.J); copyView(this.ghost, this.shown); }
    this.refresh();
  }

  trigger(name, value = {}) { this.channel.setTriggerValue(name, { ...value, nonce: this.serial++ }); }

  later(name, wait, act) {
    clearTimeout(this.timers[name]);
    this.timers[name] = setTimeout(act, wait);
    this.waiting[name] = act;
  }

  /** Ask for a fit of what is on screen, also where the hand has not rested yet. */
  askForFit() {
    if (this.waiting.priors && !this.sent.has(priorsKey(this.priors))) { clearTimeout(this.timers.priors); this.waiting.priors(); }
    this.trigger("fit");
  }
}

function sameUnits(a, b) {
  const list = d => JSON.stringify([d.units.label, d.units.effect, d.units.se, d.units.group]);
  return a === b || list(a) === list(b);
}

const explorers = new WeakMap();

export default function ({ data, parentElement, setStateValue, setTriggerValue }) {
  const root = parentElement.querySelector(".ppx");
  let explorer = explorers.get(root);
  if (!explorer) { explorer = new Explorer(root); explorers.set(root, explorer); }
  explorer.update(data, { setStateValue, setTriggerValue });
  return () => { explorer.destroy(); explorers.delete(root); };
}
