/** Three answers to one question: the focused unit without pooling, partially and completely pooled. */
import { el, setRuns, setText, svg } from "./dom.js";
import { locationAt, weightsAt } from "./engine.js";
import { capital, fixed, NBSP, percents, shareWords, spread } from "./format.js";

const GLYPHS = {
  none: () => svg("svg", { width: 12, height: 12, "aria-hidden": "true" }, svg("circle", { cx: 6, cy: 6, r: 3.7, class: "raw-mark" })),
  partial: () => svg("svg", { width: 12, height: 12, "aria-hidden": "true" }, svg("circle", { cx: 6, cy: 6, r: 4.5, class: "pooled-mark" })),
  complete: () => svg("svg", { width: 12, height: 16, "aria-hidden": "true" }, svg("path", { d: "M6 0v16", class: "mean-line" })),
};
const SHARES = ["own", "others", "prior"];

export class PoolingsPart {
  constructor(app) {
    this.app = app;
    this.title = el("h2", { class: "fig-title" });
    this.rows = ["none", "partial", "complete"].map(kind => {
      const name = el("span", {}), value = el("span", { class: "estimate" }), words = el("p", { class: "words" });
      const bars = SHARES.map(share => el("span", { class: share }));
      const bar = el("div", { class: "bar", "aria-hidden": "true" }, ...bars);
      return { name, value, words, bar, bars, node: el("div", { class: `pool-row ${kind}` }, GLYPHS[kind](), name, value, bar, words) };
    });
    this.node = el("section", { class: "poolings-part", "aria-label": "Three poolings" }, this.title, ...this.rows.map(row => row.node));
  }

  layout() {}
  refresh() {}

  render() {
    const { app } = this, { data, units, focus, posterior } = app, digits = data.units.estimateDigits;
    setText(this.title, `Three answers for ${data.words.one} ${data.units.label[focus]}`);
    const partial = data.model.why_no_tau && !app.canHold ? ["This model"] : app.averaged ? ["Partial pooling"] : ["Partial, at ", [app.symbol, "maths"], ` = ${spread(app.tau, units.c)}`];
    this.show(this.rows[0], ["No pooling"], fixed(units.y[focus], digits), { own: 1, others: 0, prior: 0 });
    this.show(this.rows[1], partial, fixed(app.target().mean[focus], digits), app.weights(focus));
    const complete = this.complete(focus);
    this.rows[2].node.hidden = !complete;
    if (complete) this.show(this.rows[2], ["Complete pooling"], fixed(complete.value, digits), complete.weights);
    this.rows[1].node.style.setProperty("--own", `var(--ppx-${app.colourName(focus)})`);
    this.node.hidden = !posterior;
  }

  complete(i) {
    const { app } = this;
    if (app.location) return { value: locationAt(app.units, app.location, 0).m, weights: weightsAt(app.units, app.location, 0, i) };
    if (app.curves && app.curves.complete) return { value: app.curves.complete[i], weights: null };
    const value = app.curves && app.curves.mu_mean ? app.curves.mu_mean[0] : app.data.model.complete;
    return Number.isFinite(value) ? { value, weights: null } : null;
  }

  show(row, name, value, weights) {
    setRuns(row.name, name);
    setText(row.value, value);
    const shares = weights && percents(weights), words = weights ? (shares[0] === 100 ? `100${NBSP}% own data` : shareWords(weights, this.app.data.words.many)) : "";
    row.bar.hidden = row.words.hidden = !weights;
    if (!weights) return;
    row.bars.forEach((bar, k) => { const flex = `${shares[k]} 0 0`; if (bar.shownFlex !== flex) { bar.shownFlex = flex; bar.style.flex = flex; bar.hidden = shares[k] === 0; } });
    setText(row.words, capital(words));
  }
}
