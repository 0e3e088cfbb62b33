/** Building and changing the page. Text always enters as text nodes or attributes, never as markup. */

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter(child => child !== null && child !== undefined));
  return node;
}

/** An HTML element; attributes named on… are listeners. */
export function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** Touches the page only when the words changed. */
export function setText(node, text) {
  if (node.shownText !== text) { node.shownText = text; node.textContent = text; }
}

/** A word with an explanation, for pointer and keyboard. */
export function tip(tag, classes, words, title) {
  return el(tag, title ? { class: `${classes} tip`, title, tabindex: 0 } : { class: classes }, words);
}

/** Styled words: strings, [string, class] or [string, class, explanation]. */
export function setRuns(node, runs) {
  const signature = runs.map(run => (typeof run === "string" ? run : run.join("\u0001"))).join("\u0002");
  if (node.shownRuns === signature) return;
  node.shownRuns = signature;
  node.replaceChildren(...runs.map(run => (typeof run === "string" ? run : (run[2] ? tip("span", run[1], run[0], run[2]) : el("span", { class: run[1] }, run[0])))));
}

export function setAttribute(node, name, value) {
  const text = String(value);
  if (node.getAttribute(name) !== text) node.setAttribute(name, text);
}

/** Sizes a canvas for the screen's pixels and returns its context. */
export function sizeCanvas(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1, w = Math.round(width * ratio), h = Math.round(height * ratio);
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

const ruler = document.createElement("canvas").getContext("2d");

/** Width of a text in pixels. */
export function textWidth(text, font) {
  ruler.font = font;
  return ruler.measureText(text).width;
}

/** The text, cut with an ellipsis to fit. */
export function fitted(text, width, font) {
  if (textWidth(text, font) <= width) return text;
  let n = text.length;
  while (n > 1 && textWidth(`${text.slice(0, n)}…`, font) > width) n--;
  return `${text.slice(0, n)}…`;
}

/** #rrggbb with an opacity. */
export function faded(hex, opacity) {
  const n = parseInt(hex.slice(1, 7), 16);
  return `rgba(${n >> 16}, ${(n >> 8) & 255}, ${n & 255}, ${opacity})`;
}

/** Whether a CSS colour is dark, by its relative luminance. */
export function isDark(colour) {
  ruler.fillStyle = "#ffffff";
  ruler.fillStyle = colour;
  const n = parseInt(ruler.fillStyle.slice(1, 7), 16);
  const [r, g, b] = [n >> 16, (n >> 8) & 255, n & 255].map(v => ((v / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b < 0.18;
}
