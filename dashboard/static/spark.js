// Sparklines: what was sold in ink, what is expected in the accent colour, as small inline SVG.

import { svg } from "./dom.js";

const WIDTH = 180;
const HEIGHT = 34;
const PAD = 2;

const line = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

/** Path pieces of a series; a gap where it is unknown. */
function pieces(values, x, y) {
  const found = [];
  let piece = [];
  values.forEach((value, i) => {
    if (value === null) {
      if (piece.length) found.push(piece);
      piece = [];
    } else piece.push([x(i), y(value)]);
  });
  if (piece.length) found.push(piece);
  return found;
}

/**
 * @param sold numbers or null, oldest first
 * @param fan {p10, p50, p90} of the steps after, or null
 */
export function sparkline(sold, fan, offset = 0) {
  const ahead = fan ? fan.p50.length : 0;
  const total = Math.max(2, sold.length + ahead - offset);
  const tops = [...sold.filter((value) => value !== null), ...(fan ? fan.p90 : [])];
  const top = Math.max(1, ...tops);
  const x = (i) => PAD + (i * (WIDTH - 2 * PAD)) / (total - 1);
  const y = (value) => HEIGHT - PAD - (Math.min(value, top) * (HEIGHT - 2 * PAD)) / top;
  const parts = pieces(sold, x, y);
  const shapes = parts.map((piece) =>
    svg("path", { class: "spark-area", d: `${line(piece)}L${piece.at(-1)[0]} ${HEIGHT}L${piece[0][0]} ${HEIGHT}Z` }));
  shapes.push(...parts.map((piece) => svg("path", { class: "spark-line", d: line(piece) })));
  if (fan) {
    // The fan grows out of the last bucket that was sold.
    const start = sold.length - offset;
    const last = sold[start - 1] ?? null;
    const lead = last === null ? [] : [[x(start - 1), y(last)]];
    const at = (values) => [...lead, ...values.map((value, i) => [x(start + i), y(value ?? 0)])];
    shapes.push(svg("path", { class: "spark-band", d: `${line([...at(fan.p90), ...at(fan.p10).reverse()])}Z` }));
    shapes.push(svg("path", { class: "spark-ahead", d: line(at(fan.p50)) }));
  }
  return svg("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" }, shapes);
}

/** Two error curves on one scale, with an upright mark where something began. */
export function errorSpark(atMs, model, naive, markMs) {
  const known = [...model, ...naive].filter((value) => value !== null);
  if (atMs.length < 2 || !known.length) return null;
  const top = Math.max(...known) * 1.05;
  const low = Math.min(...known) * 0.9;
  const [first, last] = [atMs[0], atMs.at(-1)];
  const atX = (ms) => PAD + ((ms - first) * (WIDTH - 2 * PAD)) / Math.max(1, last - first);
  const x = (i) => atX(atMs[i]);
  const y = (value) => HEIGHT - PAD - ((value - low) * (HEIGHT - 2 * PAD)) / Math.max(1e-9, top - low);
  const curve = (values, name) => pieces(values, x, y).map((piece) => svg("path", { class: name, d: line(piece) }));
  const mark = markMs >= first && markMs <= last
    ? svg("path", { class: "spark-mark", d: `M${atX(markMs).toFixed(1)} 0V${HEIGHT}` }) : null;
  return svg("svg", { class: "spark tall", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    mark, curve(naive, "spark-naive"), curve(model, "spark-ahead"));
}
