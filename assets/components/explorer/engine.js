/**
 * The two-level normal model with known standard errors, solved exactly.
 *
 *   y_i ~ Normal(θ_i, s_i)   θ_i ~ Normal(μ, τ)   μ ~ Normal(m0, 1/√p0), or flat with p0 = 0
 *   V_i = s_i² + τ²   P = p0 + Σ 1/V_i   m = (p0 m0 + Σ y_i/V_i)/P   B_i = s_i²/V_i
 *   θ_i | τ, y ~ Normal(B_i m + (1 − B_i) y_i,  B_i τ² + B_i²/P)
 *
 * What is left is one integral over τ. With τ = c exp(x − e^(−x)), or the logit of τ between finite edges, its
 * integrand is analytic in a strip and vanishes at both ends, so the trapezoid rule converges exponentially:
 * a power τ^(a−1) at the origin is as harmless as an edge. Halving the step squares the error, which gives
 * the error estimate. The sums over units know no prior: they are kept with the data.
 *
 * Gelman et al. (2013), BDA3, section 5.4; Takahasi & Mori (1974), Publ. RIMS 9, 721-741.
 */
import { FAMILIES } from "./families.js";
import { normalCdf, normalPdf } from "./special.js";

export const Z50 = 0.6744897501960817, Z95 = 1.959963984540054;
const STEP = 0.125;               // of the coarsest lattice, in x
const LEFT = -6.375, RIGHT = 40;  // its ends: τ/c from exp(−594) to exp(40)
const NATS = 42;                  // what lies this far below the top is left out
const FINEST = 14;
const FIELDS = ["mean", "lo95", "lo50", "hi50", "hi95", "B"];

/** Data with what depends on them alone. `c` is the median standard error. */
export function prepare(effect, se) {
  const y = Float64Array.from(effect), s = Float64Array.from(se), sorted = Float64Array.from(se).sort();
  const J = y.length, h = J >> 1, c = J % 2 ? sorted[h] : (sorted[h - 1] + sorted[h]) / 2;
  return { J, y, s, s2: s.map(v => v * v), c, sums: new Map() };
}

/** A view is what a forest draws; the posterior and the posterior given τ share it. */
export function emptyView(J) {
  const view = { m: NaN };
  for (const field of FIELDS) view[field] = new Float64Array(J);
  return view;
}

/** Writes `from` + `share` (`to` − `from`) into `out`. */
export function blendViews(out, from, to, share) {
  for (const field of FIELDS) {
    const a = from[field], b = to[field], o = out[field];
    for (let i = 0; i < o.length; i++) o[i] = a[i] + share * (b[i] - a[i]);
  }
  out.m = from.m + share * (to.m - from.m);
}

export function copyView(out, from) {
  for (const field of FIELDS) out[field].set(from[field]);
  out.m = from.m;
}

/** Prior on μ as mean and precision, or null where this engine does not apply. */
export function locationPrior(prior) {
  if (prior.family === "Normal") return { m0: prior.numbers[0], p0: 1 / prior.numbers[1] ** 2 };
  return prior.family === "Flat" ? { m0: 0, p0: 0 } : null;
}

/** Log density of a prior on τ; the flat one is flat on the positive numbers. */
export function scaleLogDensity(prior) {
  const family = FAMILIES[prior.family], p = prior.numbers, [lower, upper] = family.support(p);
  if (lower <= 0 && upper === Infinity) return t => family.log(t, p);
  return t => (t < lower || t > upper ? -Infinity : family.log(t, p));
}

/** How fast the posterior of τ falls: moments of this order and above are infinite; ≤ 0 is improper. */
export function posteriorTail(data, location, prior) {
  const family = FAMILIES[prior.family];
  return family.support(prior.numbers)[1] < Infinity ? Infinity : family.tail(prior.numbers) + data.J - (location.p0 > 0 ? 0 : 1);
}

/** Σ log V, Σ 1/V, precision-weighted mean and centred sum of squares at each τ. */
function dataSums(data, tau) {
  const n = tau.length, { y, s2, J } = data;
  const logs = new Float64Array(n), weight = new Float64Array(n), mean = new Float64Array(n), squares = new Float64Array(n);
  for (let k = 0; k < n; k++) {
    const t2 = tau[k] * tau[k];
    let log = 0, product = 1, w = 0, r = 0, q = 0;
    for (let i = 0; i < J; i++) {
      const V = s2[i] + t2;
      product *= V;
      if (product > 1e200 || product < 1e-200) { log += Math.log(product); product = 1; }  // few logarithms
      w += 1 / V;
      r += (y[i] - y[0]) / V;
    }
    const centre = y[0] + r / w;
    for (let i = 0; i < J; i++) { const d = y[i] - centre; q += d * d / (s2[i] + t2); }
    logs[k] = log + Math.log(product); weight[k] = w; mean[k] = centre; squares[k] = q;
  }
  return { tau, logs, weight, mean, squares };
}

/** log p(y | τ) at node k, up to a constant. */
function logLikelihood(S, k, { m0, p0 }) {
  const w = S.weight[k];
  if (p0 === 0) return -0.5 * (S.logs[k] + S.squares[k] + Math.log(w));
  const d = S.mean[k] - m0;
  return -0.5 * (S.logs[k] + S.squares[k] + w * p0 / (w + p0) * d * d + Math.log1p(w / p0));
}

/** The change of variable for a support: τ(x), log dτ/dx, and whether its sums can be kept with the data. */
function changeOfVariable(data, [lower, upper]) {
  const a = Math.max(0, lower), { c } = data;
  if (upper === Infinity) {
    return {
      left: LEFT, right: RIGHT, kept: a === 0,
      tau: x => a + c * Math.exp(x - Math.exp(-x)),
      logJacobian: x => x - Math.exp(-x) + Math.log1p(Math.exp(-x)) + Math.log(c),
    };
  }
  const width = upper - a;
  return {
    left: -40, right: 40, kept: false,
    tau: x => a + width / (1 + Math.exp(-x)),
    logJacobian: x => Math.log(width) - Math.abs(x) - 2 * Math.log1p(Math.exp(-Math.abs(x))),
  };
}

/** Sums on one level of the lattice between x indices `from` and `to`; level 0 is the lattice itself, level
    l ≥ 1 the midpoints that halve it for the l-th time. */
function level(data, map, l, from, to) {
  const held = map.kept && data.sums.get(l);
  if (held && held.from <= from && held.to >= to) return held;
  const h = STEP / 2 ** Math.max(0, l - 1), first = l === 0 ? 0 : 0.5, n = to - from + 1;
  const x = Float64Array.from({ length: n }, (_, k) => map.left + (from + k + first) * h);
  const made = { from, to, x, ...dataSums(data, x.map(map.tau)) };
  if (map.kept) data.sums.set(l, made);
  return made;
}

/** Nodes and weights of the posterior of τ, refined until the square of two steps' difference is below `tolerance`. */
function quadrature(data, location, prior, tolerance) {
  const map = changeOfVariable(data, FAMILIES[prior.family].support(prior.numbers)), log = scaleLogDensity(prior);
  const last = Math.round((map.right - map.left) / STEP), base = level(data, map, 0, 0, last);
  const logWeight = (S, k) => logLikelihood(S, k, location) + log(S.tau[k]) + map.logJacobian(S.x[k]);
  const lw = new Float64Array(last + 1);
  let top = -Infinity, peak = 0;
  for (let k = 0; k <= last; k++) { lw[k] = logWeight(base, k); if (lw[k] > top) { top = lw[k]; peak = k; } }
  let a = 0, b = last;
  while (a < peak && !(lw[a] > top - NATS)) a++;
  // the second moment of τ reaches further out than its mass
  while (b > peak && !(lw[b] + 2 * Math.log1p(base.tau[b] / data.c) > top - NATS)) b--;
  a = Math.max(0, a - 2); b = Math.min(last, b + 2);

  const nodes = { tau: [], log: [], weight: [], mean: [] };
  const add = (S, k, value) => {
    if (!(value > -Infinity)) return;
    nodes.tau.push(S.tau[k]); nodes.log.push(value); nodes.weight.push(S.weight[k]); nodes.mean.push(S.mean[k]);
  };
  const { m0, p0 } = location;
  const summary = (h, count) => {
    let highest = -Infinity;
    for (let k = 0; k < count; k++) highest = Math.max(highest, nodes.log[k]);
    let Z = 0, u = 0, m = 0;
    for (let k = 0; k < count; k++) {
      const w = Math.exp(nodes.log[k] - highest);
      Z += w; u += w * nodes.tau[k] / (nodes.tau[k] + data.c); m += w * (p0 * m0 + nodes.weight[k] * nodes.mean[k]) / (p0 + nodes.weight[k]);
    }
    return { logZ: highest + Math.log(Z * h), u: u / Z, m: m / Z };
  };
  for (let k = a + (a % 2); k <= b; k += 2) add(base, k, lw[k]);
  let before = summary(2 * STEP, nodes.tau.length), h = STEP, error = Infinity;
  for (let k = a + 1 - (a % 2); k <= b; k += 2) add(base, k, lw[k]);
  for (let l = 0; ; ) {
    const now = summary(h, nodes.tau.length);
    error = Math.max(Math.abs(Math.expm1(now.logZ - before.logZ)), Math.abs(now.u - before.u), Math.abs(now.m - before.m) / data.c);
    before = now;
    if (error < 0.3 * Math.sqrt(tolerance) || l === FINEST) break;
    l += 1;
    const from = a * 2 ** (l - 1), to = b * 2 ** (l - 1) - 1, S = level(data, map, l, from, to), skip = from - S.from;
    for (let k = skip; k <= skip + to - from; k++) { const value = logWeight(S, k); if (value > top - 2 * NATS) { add(S, k, value); top = Math.max(top, value); } }
    h /= 2;
  }
  const n = nodes.tau.length, w = new Float64Array(n), P = new Float64Array(n), m = new Float64Array(n);
  for (let k = 0; k < n; k++) {
    w[k] = Math.exp(nodes.log[k] + Math.log(h) - before.logZ);
    P[k] = p0 + nodes.weight[k];
    m[k] = (p0 * m0 + nodes.weight[k] * nodes.mean[k]) / P[k];
  }
  return { tau: nodes.tau, w, P, m, error: error * error };
}

/** Quantile of a mixture of normals: Newton's steps inside a bracket, to `tolerance` in units of `scale`. */
function mixtureQuantile(p, m, s, w, n, start, scale, tolerance) {
  const near = 0.3 * Math.sqrt(tolerance) * scale;   // a step this small leaves its square as error
  let lo = -Infinity, hi = Infinity, x = start;
  for (let it = 0; it < 100; it++) {
    let F = 0, f = 0;
    for (let k = 0; k < n; k++) {
      const z = (x - m[k]) / s[k], e = Math.exp(-0.5 * z * z);
      F += w[k] * normalCdf(z, e);
      f += w[k] * e / s[k];
    }
    f *= 0.3989422804014327;
    if (F > p) hi = x; else lo = x;
    let next = x - (F - p) / Math.max(f, 1e-3 / scale);
    if (!(next > lo && next < hi)) next = isFinite(lo) && isFinite(hi) ? (lo + hi) / 2 : x + Math.sign(p - F) * scale;
    const moved = Math.abs(next - x);
    x = next;
    if (moved < near) break;
  }
  return x;
}

/**
 * The exact posterior.
 *
 * `tolerance` bounds the error of the estimates and their intervals, in posterior sds.
 * Returns null where this engine does not apply, and { improper: true } where there is no posterior.
 */
export function solve(data, priors, tolerance = 1e-11) {
  const location = locationPrior(priors.mu);
  if (!location) return null;
  const tail = posteriorTail(data, location, priors.tau);
  if (!(tail > 0)) return { improper: true };
  const Q = quadrature(data, location, priors.tau, tolerance), { J, y, s2, c } = data, { p0 } = location, n = Q.w.length;

  let mu = 0, tau = 0, mu2 = 0, tau2 = 0;
  for (let k = 0; k < n; k++) { mu += Q.w[k] * Q.m[k]; tau += Q.w[k] * Q.tau[k]; }
  for (let k = 0; k < n; k++) { mu2 += Q.w[k] * (1 / Q.P[k] + (Q.m[k] - mu) ** 2); tau2 += Q.w[k] * (Q.tau[k] - tau) ** 2; }

  const keep = [], least = Math.max(1e-13, 1e-3 * tolerance);
  for (let k = 0; k < n; k++) if (Q.w[k] > least) keep.push(k);
  const K = keep.length, t2 = new Float64Array(K), w = new Float64Array(K), P = new Float64Array(K), m = new Float64Array(K);
  keep.forEach((k, j) => { t2[j] = Q.tau[k] ** 2; w[j] = Q.w[k]; P[j] = Q.P[k]; m[j] = Q.m[k]; });
  const view = emptyView(J), sd = new Float64Array(J), own = new Float64Array(J), others = new Float64Array(J), fromPrior = new Float64Array(J);
  const cm = new Float64Array(K), cs = new Float64Array(K);
  view.m = mu;
  for (let i = 0; i < J; i++) {
    let mean = 0, B = 0, o = 0, pr = 0, variance = 0;
    for (let k = 0; k < K; k++) {
      const V = s2[i] + t2[k], b = s2[i] / V;
      cm[k] = b * m[k] + (t2[k] / V) * y[i];
      cs[k] = Math.sqrt(b * t2[k] + b * b / P[k]);
      mean += w[k] * cm[k]; B += w[k] * b; o += w[k] * (t2[k] / V + b / (V * P[k])); pr += w[k] * b * p0 / P[k];
    }
    for (let k = 0; k < K; k++) variance += w[k] * (cs[k] * cs[k] + (cm[k] - mean) ** 2);
    const scale = Math.sqrt(variance);
    sd[i] = scale; view.mean[i] = mean; view.B[i] = B; own[i] = o; fromPrior[i] = pr; others[i] = Math.max(0, 1 - o - pr);
    view.lo95[i] = mixtureQuantile(0.025, cm, cs, w, K, mean - Z95 * scale, scale, tolerance);
    view.lo50[i] = mixtureQuantile(0.25, cm, cs, w, K, mean - Z50 * scale, scale, tolerance);
    view.hi50[i] = mixtureQuantile(0.75, cm, cs, w, K, mean + Z50 * scale, scale, tolerance);
    view.hi95[i] = mixtureQuantile(0.975, cm, cs, w, K, mean + Z95 * scale, scale, tolerance);
  }
  const flat = p0 === 0;
  return {
    view, sd, own, others, fromPrior, nodes: K,
    mu: { mean: flat && tail <= 1 ? NaN : mu, sd: flat && tail <= 2 ? Infinity : Math.sqrt(mu2) },
    tau: { mean: tail <= 1 ? Infinity : tau, sd: tail <= 2 ? Infinity : Math.sqrt(tau2) },
    centre: tau / (tau + c),
    error: Math.max(Q.error, 1e-13) * Math.max(c, Math.sqrt(mu2)),
    mixture: { w: Q.w, m: Q.m, P: Q.P },
    logLikelihood: smoothLikelihood(data, location),
  };
}

/** Posterior density of μ, from the mixture that `solve` returns. */
export function locationDensity({ w, m, P }, x) {
  let f = 0;
  for (let k = 0; k < w.length; k++) { const r = Math.sqrt(P[k]); f += w[k] * r * normalPdf((x - m[k]) * r); }
  return f;
}

/** x where x − e^(−x) = v. */
function inverseMap(v) {
  let x = v > 0 ? v : -Math.log(1 - v);
  for (let it = 0; it < 8; it++) { const e = Math.exp(-x); x -= (x - e - v) / (1 + e); }
  return x;
}

/** log p(y | τ) anywhere, interpolated between kept sums (six-point Lagrange): for drawing. */
function smoothLikelihood(data, location) {
  const map = changeOfVariable(data, [0, Infinity]), last = Math.round((RIGHT - LEFT) / STEP), S = level(data, map, 0, 0, last);
  const L = Float64Array.from({ length: last + 1 }, (_, k) => logLikelihood(S, k, location));
  return tau => {
    const t = Math.max(0, Math.min(last, (inverseMap(Math.log(tau / data.c)) - LEFT) / STEP)), first = Math.max(0, Math.min(last - 5, Math.floor(t) - 2));
    let value = 0;
    for (let i = 0; i < 6; i++) {
      let basis = 1;
      for (let j = 0; j < 6; j++) if (j !== i) basis *= (t - first - j) / (i - j);
      value += basis * L[first + i];
    }
    return value;
  };
}

const GAUSS3 = [[0.1127016653792583, 5 / 18], [0.5, 8 / 18], [0.8872983346207417, 5 / 18]];
const CELLS = 240, LOWEST = -28, HIGHEST = 40;   // in log of value over scale

/** Distribution of a positive quantity from its log density: density, cdf and quantile, to drawing accuracy. */
export function distribution(logDensity, [lower, upper], scale) {
  const clip = v => Math.max(lower > 0 ? Math.log(lower / scale) : LOWEST, Math.min(upper < Infinity ? Math.log(upper / scale) : HIGHEST, v));
  const x0 = clip(LOWEST), x1 = clip(HIGHEST), n = Math.max(8, Math.ceil((x1 - x0) / STEP)), f = x => logDensity(scale * Math.exp(x)) + x + Math.log(scale);
  let top = -Infinity, at = 0;
  const values = Float64Array.from({ length: n + 1 }, (_, k) => f(x0 + (x1 - x0) * Math.min(1 - 1e-12, Math.max(1e-12, k / n))));
  values.forEach((v, k) => { if (v > top) { top = v; at = k; } });
  let a = 0, b = n;
  while (a < at && !(values[a] > top - 34)) a++;
  while (b > at && !(values[b] > top - 34)) b--;
  const lo = x0 + (x1 - x0) * Math.max(0, a - 1) / n, hi = x0 + (x1 - x0) * Math.min(n, b + 1) / n, width = (hi - lo) / CELLS;
  const cumulative = new Float64Array(CELLS + 2), points = [];
  for (let k = 0; k < CELLS; k++) for (const [g] of GAUSS3) { const v = f(lo + (k + g) * width); points.push(v); if (v > top) top = v; }
  const slope = (values[1] - values[0]) * n / (x1 - x0), below = a === 0 && slope > 0 && lower <= 0 ? Math.exp(values[0] - top) / slope : 0;
  cumulative[0] = below;
  for (let k = 0; k < CELLS; k++) {
    let mass = 0;
    for (let j = 0; j < 3; j++) mass += GAUSS3[j][1] * Math.exp(points[3 * k + j] - top);
    cumulative[k + 1] = cumulative[k] + mass * width;
  }
  const fall = (values[n - 1] - values[n]) * n / (x1 - x0);
  const total = cumulative[CELLS] + (b === n && fall > 0 && upper === Infinity ? Math.exp(values[n] - top) / fall : 0), logTotal = top + Math.log(total);
  return {
    density: v => (v < lower || v > upper ? 0 : Math.exp(logDensity(v) - logTotal)),
    cdf(v) {
      if (v <= Math.max(0, lower)) return 0;
      if (v >= upper || v === Infinity) return 1;
      const t = (Math.log(v / scale) - lo) / width;
      if (t <= 0) return Math.min(1, (cumulative[0] / total) * Math.exp(Math.max(slope, 0) * t * width));
      const k = Math.min(CELLS - 1, Math.floor(t)), share = Math.min(1, t - k);
      return (cumulative[k] + (cumulative[k + 1] - cumulative[k]) * share) / total;
    },
    quantile(p) {
      const target = p * total;
      if (target <= cumulative[0]) return cumulative[0] > 0 && slope > 0 ? scale * Math.exp(lo + Math.log(target / cumulative[0]) / slope) : Math.max(0, lower);
      let k = 0;
      while (k < CELLS - 1 && cumulative[k + 1] < target) k++;
      const share = (target - cumulative[k]) / (cumulative[k + 1] - cumulative[k] || 1);
      return share > 1 ? Infinity : scale * Math.exp(lo + (k + share) * width);
    },
  };
}

/** Prior distribution of τ, or null for the flat one. */
export function scalePrior(data, prior) {
  const family = FAMILIES[prior.family];
  return family.proper ? distribution(scaleLogDensity(prior), family.support(prior.numbers), data.c) : null;
}

/** Posterior distribution of τ. */
export function scalePosterior(data, prior, logLikelihoodOf) {
  const log = scaleLogDensity(prior), support = FAMILIES[prior.family].support(prior.numbers);
  return distribution(t => log(t) + logLikelihoodOf(t), support, data.c);
}

/** Mean m and precision P of μ given τ. */
export function locationAt(data, { m0, p0 }, tau) {
  const { y, s2, J } = data;
  if (tau === Infinity) { let sum = 0; for (const v of y) sum += v; return { m: p0 > 0 ? m0 : sum / J, P: p0 }; }
  const t2 = tau * tau;
  let P = p0, r = p0 * m0;
  for (let i = 0; i < J; i++) { const w = 1 / (s2[i] + t2); P += w; r += w * y[i]; }
  return { m: r / P, P };
}

/** E and sd of θ_i given each of several τ, from μ's mean and precision there. */
export function effectAlong(data, taus, at, i) {
  const n = taus.length, mean = new Float64Array(n), sd = new Float64Array(n), s2 = data.s2[i], y = data.y[i];
  for (let k = 0; k < n; k++) {
    const B = s2 / (s2 + taus[k] * taus[k]), rest = B === 0 ? 0 : B * B / at[k].P;   // P may vanish where B does
    mean[k] = B * at[k].m + (1 - B) * y;
    sd[k] = Math.sqrt((1 - B) * s2 + rest);
  }
  return { mean, sd };
}

/** θ given τ, into `out`: closed form, run on every movement of the hand. */
export function conditional(data, location, tau, out) {
  const { m, P } = locationAt(data, location, tau), { y, s2, J } = data;
  out.m = m;
  for (let i = 0; i < J; i++) {
    const B = s2[i] / (s2[i] + tau * tau), rest = B === 0 ? 0 : B * B / P;
    setRow(out, i, B, B * m + (1 - B) * y[i], Math.sqrt((1 - B) * s2[i] + rest));
  }
  return out;
}

/** Row i of a view from a normal's mean and sd. */
export function setRow(out, i, B, mean, sd) {
  out.B[i] = B; out.mean[i] = mean;
  out.lo95[i] = mean - Z95 * sd; out.lo50[i] = mean - Z50 * sd; out.hi50[i] = mean + Z50 * sd; out.hi95[i] = mean + Z95 * sd;
}

/** Weights of E[θ_i | τ, y] on its own datum, the other units' and the prior mean. They sum to 1. */
export function weightsAt(data, location, tau, i) {
  if (tau === Infinity) return { own: 1, others: 0, prior: 0 };
  const { P } = locationAt(data, location, tau), V = data.s2[i] + tau * tau, B = data.s2[i] / V;
  const own = 1 - B + B / (V * P), prior = B * location.p0 / P;
  return { own, prior, others: Math.max(0, 1 - own - prior) };
}
