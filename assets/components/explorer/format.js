/** How numbers are said. One place for digits, signs and shares. */

export const NBSP = "\u00a0", TAU = "τ", INFINITY = "∞";

const minus = text => text.replace("-", "\u2212");

/** Fixed decimals, with a true minus and no minus zero. */
export function fixed(value, decimals) {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "–" : minus(value < 0 ? `-${INFINITY}` : INFINITY);
  return minus((Math.abs(value) < 0.5 * 10 ** -decimals ? 0 : value).toFixed(decimals));
}

/** Shortest text of a number to so many significant digits. */
export function short(value, digits = 6) {
  if (!Number.isFinite(value)) return fixed(value, 0);
  return minus(String(+value.toPrecision(digits)));
}

/** As `short`, with a power of ten where the digits would be many. */
export function written(value, digits = 6) {
  const size = Math.abs(value);
  return Number.isFinite(value) && size > 0 && (size >= 1e7 || size < 1e-4) ? minus((+value.toPrecision(digits)).toExponential().replace("+", "").replace("e-", "e\u2212")) : short(value, digits);
}

/** A typed number, NaN for anything else; the decimal comma and the true minus are understood. */
export function readNumber(text) {
  const plain = text.trim().replaceAll("\u2212", "-").replace(",", ".");
  return plain === "" ? NaN : Number(plain);
}

/** Two significant digits, whole numbers in full: for quantiles said in words. */
export function rough(value) {
  const size = Math.abs(value);
  return size >= 99.5 && size < 1e7 ? minus(String(Math.round(value))) : written(value, 2);
}

/** Two ends of a range: an end much nearer to 0 than the other takes fewer digits. */
export function roughRange(a, b) {
  const digits = Math.max(0, Math.min(20, 2 - Math.floor(Math.log10(b - a)))), end = v => rough(Number.isFinite(v) ? +v.toFixed(digits) : v);
  return `${end(a)} and ${end(b)}`;
}

/** A spread, with decimals that suit its typical size. */
export function spread(value, typical) {
  if (value === Infinity) return INFINITY;
  if (!(value > 0)) return "0";
  const most = Math.max(0, 2 - Math.floor(Math.log10(typical) + 1e-12));
  return value.toFixed(Math.max(0, Math.min(most, 1 - Math.floor(Math.log10(value) + 0.0022))));
}

/** A step of 1, 2 or 5 times a power of ten near x. */
export function niceStep(x) {
  const power = 10 ** Math.floor(Math.log10(x)), f = x / power;
  return (f < 1.5 ? 1 : f < 3.5 ? 2 : f < 7.5 ? 5 : 10) * power;
}

/** Multiples of a step from `lo` to `hi`, free of rounding dust. */
export function multiples(lo, hi, step) {
  const out = [];
  for (let k = Math.ceil(lo / step - 1e-9); k * step <= hi + 1e-9 * step; k++) out.push(+(k * step).toPrecision(12));
  return out;
}

/** Three shares as whole per cents that add up to 100 (largest remainder). */
export function percents({ own, others, prior }) {
  const exact = [own, others, prior].map(v => 100 * Math.max(0, v)), whole = exact.map(Math.floor);
  let left = 100 - whole[0] - whole[1] - whole[2];
  for (const i of [0, 1, 2].sort((a, b) => exact[b] - whole[b] - (exact[a] - whole[a]))) if (left-- > 0) whole[i]++;
  return whole;
}

export function percent(share) {
  return `${Math.round(100 * share)}${NBSP}%`;
}

/** "18 % its own data, 78 % the other schools, 4 % prior". */
export function shareWords(weights, many, { its = "", the = "" } = {}) {
  const [own, others, prior] = percents(weights);
  if (own === 100) return `100${NBSP}% ${its}own data`;
  return `${own}${NBSP}% ${its}own data, ${others}${NBSP}% ${the}other ${many}, ${prior}${NBSP}% prior`;
}

/** What the symbols of every figure mean. */
export const MEANING = {
  mu: "common mean",
  B: "s²/(s² + τ²): 0 keeps the unit's own value, 1 moves it onto the pooled mean",
};

/** What B means in a model: in some s is no unit's own standard error. */
export function meaningOfB(spread) {
  return spread.pooled || MEANING.B;
}

export function capital(word) {
  return word.charAt(0).toUpperCase() + word.slice(1);
}

/** Labels pushed apart to a least gap, in order, near where they belong. */
export function dodged(positions, gap, lo, hi) {
  const order = positions.map((_, i) => i).sort((a, b) => positions[a] - positions[b]), out = [...positions];
  for (let round = 0; round < 200; round++) {
    let moved = false;
    for (let k = 1; k < order.length; k++) {
      const a = order[k - 1], b = order[k], short = gap - (out[b] - out[a]);
      if (short > 1e-3) { out[a] -= short / 2; out[b] += short / 2; moved = true; }
    }
    for (const i of order) out[i] = Math.max(lo, Math.min(hi, out[i]));
    if (!moved) break;
  }
  return out;
}
