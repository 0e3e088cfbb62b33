/** The story in one sentence; its numbers follow the posterior. */
import { el, setRuns } from "./dom.js";
import { fixed } from "./format.js";

export class StoryPart {
  constructor(app) {
    this.app = app;
    this.node = el("p", { class: "story" });
  }

  layout() {}

  refresh() {
    const { data, posterior, units } = this.app, { label, digits, estimateDigits } = data.units;
    // Its numbers stay while τ is held; the words keep their place when they are not shown.
    const held = data.story.some(segment => segment.value === "pooled") && !data.model.why_no_tau ? [[` Averaged over ${this.app.symbol}.`, "muted while-held"]] : [];
    setRuns(this.node, [...data.story.map(segment => {
      if (Array.isArray(segment)) return segment[1] && segment[1] !== "plain" ? [segment[0], segment[1]] : segment[0];
      const i = label.indexOf(segment.unit), style = segment.style || "plain";
      const value = i < 0 || !posterior ? "–" : segment.value === "raw" ? fixed(units.y[i], digits) : fixed(posterior.view.mean[i], estimateDigits);
      return [value + (segment.after || ""), style];
    }), ...held]);
  }
}
