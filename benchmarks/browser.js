/** Stopwatches in the page, from an event's own time stamp to the frame after the one that draws it. */
(() => {
  // The component lives in a shadow root: remember every one that is made.
  const roots = [], attach = Element.prototype.attachShadow;
  Element.prototype.attachShadow = function (options) {
    const root = attach.call(this, options);
    roots.push(root);
    return root;
  };

  const root = () => [document, ...roots].map(r => r.querySelector(".ppx")).find(found => found && found.isConnected);
  const explorer = () => root()?.explorer;
  const slider = () => [...root().querySelectorAll("section.priors-part input[type=range]")].pop();
  const pill = () => root().querySelector("[role=slider].pill");
  const key = priors => JSON.stringify(Object.keys(priors).sort().map(name => [name, priors[name].family, priors[name].numbers]));

  /** Resolves with the time of the frame after the one in which `test` first held. */
  const when = test => new Promise(done => {
    const look = () => requestAnimationFrame(() => (test() ? requestAnimationFrame(() => done(performance.now())) : look()));
    look();
  });
  /** Resolves with the time from the next such event until `test` holds; a result, once asked for, is kept. */
  const from = (node, event, test) => new Promise(done => node.addEventListener(event, ({ timeStamp }) => {
    when(test).then(now => done(now - timeStamp));
  }, { once: true, capture: true }));

  const box = node => {
    node.scrollIntoView({ block: "center" });
    const { left, top, width, height } = node.getBoundingClientRect();
    return [left, top, width, height];
  };

  window.bench = {
    opened: when(() => {
      const shown = explorer();
      return shown && shown.drawn && shown.posterior && root().querySelector(".sentence")?.innerText;
    }),
    boxOfSlider: () => box(slider()),
    boxOfTau: () => box(pill()),
    focusSlider: () => slider().focus(),

    watchSlider() {
      this.waits = [];
      this.costs = [];
      slider().addEventListener("input", ({ timeStamp }) => requestAnimationFrame(() => requestAnimationFrame(() => {
        const { cost } = explorer();
        this.waits.push(performance.now() - timeStamp);
        this.costs.push(cost.solve + cost.frame);
      })), { capture: true });
    },

    watchEcho() {
      this.wait = from(slider(), "input", () => {
        const { posterior, priors } = explorer();
        return posterior.source === "server" && posterior.key === key(priors);
      });
    },

    watchTau() {
      this.frames = [];
      this.costs = [];
      this.dragging = true;
      let last = explorer().tau;
      const look = now => {
        const { tau, cost } = explorer();
        if (tau !== last) { last = tau; this.frames.push(now); this.costs.push(cost.frame); }
        if (this.dragging) requestAnimationFrame(look);
      };
      requestAnimationFrame(look);
    },

    watchFit() {
      const says = text => document.querySelector("[data-testid=stSidebar]")?.innerText.includes(text);
      this.wait = from(root().querySelector(".fit-button"), "click", () => says("Fit done"));
    },
  };
})();
