/** Which numbers can be a prior: the rules of the families' declaration, said in words. */
import { FAMILIES } from "./families.js";
import { capital, short } from "./format.js";

const MOST = 1e100;

/** One line per number of the family: empty where it is right. */
export function problems(family, numbers, positive = false) {
  const { numbers: declared, support } = FAMILIES[family];
  const lines = declared.map(({ label, lower, upper }, k) => {
    const value = numbers[k], name = capital(label);
    if (!Number.isFinite(value)) return "Type a number";
    if (lower !== null && value <= lower) return `${name} must be above ${short(lower)}`;
    if (upper !== null && value >= upper) return `${name} must be below ${short(upper)}`;
    return Math.abs(value) < MOST ? "" : `${name} must be nearer to 0`;
  });
  if (lines.some(Boolean)) return lines;
  const [a, b] = support(numbers), first = numbers.indexOf(a), last = numbers.lastIndexOf(b);
  if (!(a < b)) for (const k of [first, last]) lines[k] = `${capital(declared[first].label)} must be below ${declared[last].label}`;
  else if (positive && first >= 0 && a < 0) lines[first] = `${capital(declared[first].label)} must be 0 or above`;
  return lines;
}

/** Why a range cannot be asked for; empty where it can. */
export function rangeProblem(family, low, high, positive = false) {
  const { label, numbers, support } = FAMILIES[family];
  if (!Number.isFinite(low) || !Number.isFinite(high)) return "Type two numbers";
  if (low >= high) return "The lower end must be below the upper end";
  const [start] = support(numbers.map((_, k) => 1 + k));   // of any member: 0 where the family is positive
  if (low < 0 && (positive || start === 0)) return positive ? "It cannot be negative: start the range at 0 or above" : `${label} is never negative: start the range at 0 or above`;
  return Math.max(Math.abs(low), Math.abs(high)) < MOST ? "" : "Type numbers nearer to 0";
}
