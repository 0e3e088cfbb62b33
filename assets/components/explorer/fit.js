/** The Fit button: one request, its progress, its result line. */
import { el, setAttribute, setText } from "./dom.js";

const BUSY = ["queued", "running"];

export class FitPart {
  constructor(app) {
    this.app = app;
    this.label = el("span", {});
    this.fill = el("span", { class: "fill" });
    this.button = el("button", { type: "button", class: "fit-button", onclick: () => { if (!this.busy && !app.problems.size) app.askForFit(); } }, this.label, this.fill);
    this.text = el("span", { role: "status" });
    this.cancel = el("button", { type: "button", class: "link", onclick: () => app.trigger("cancel") }, "Cancel");
    this.node = el("section", { class: "fit-part", "aria-label": "Fit" }, this.button, el("div", { class: "fit-line words" }, this.text, this.cancel));
  }

  get busy() { return BUSY.includes((this.app.data.fit || {}).state); }

  layout() {}

  refresh() {
    const fit = this.app.data.fit || { state: "none" }, share = fit.fraction || 0;
    const says = { none: "Fit", queued: "Queued", running: `Running, ${Math.round(100 * share)}\u00a0%`, done: fit.own === false ? "Add to my fits" : "Fit again", stale: "Fit again", failed: "Fit again", cancelled: "Fit" };
    setText(this.label, says[fit.state] || "Fit");
    this.button.dataset.state = fit.state;
    setAttribute(this.button, "aria-disabled", this.busy || this.app.problems.size > 0);
    this.fill.style.transform = `scaleX(${fit.state === "running" ? share : 0})`;
    setText(this.text, this.app.problems.size && !this.busy ? "A prior above needs other numbers first." : fit.text || "");
    this.node.dataset.verdict = fit.verdict || "";
    this.cancel.hidden = !(fit.can_cancel && this.busy);
  }
}
