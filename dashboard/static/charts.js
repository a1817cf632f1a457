// The two large charts, drawn by plotly, which is loaded once when the first chart needs it.

import * as format from "./format.js";
import { DAY_MS, HOUR_MS } from "./widths.js";

const CONFIG = { displayModeBar: false, responsive: true, doubleClick: false, scrollZoom: false };
const MAX_LABELS = 8;
const MIN_STEPS = 12;
// Days with 25 hours follow each other too.
const NEXT = 1.05;

let loading = null;

function plotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = document.querySelector('meta[name="plotly"]').content;
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => {
      loading = null;
      reject(new Error("plotly did not load"));
    };
    document.head.append(script);
  });
  return loading;
}

function palette() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(`--${name}`).trim();
  return {
    ink: read("ink"), soft: read("soft"), line: read("line"), panel: read("panel"), accent: read("accent"), naive: read("naive"),
    promo: read("promo"), bad: read("bad"), band: read("band"), past: read("past"), font: style.getPropertyValue("--sans").trim(),
  };
}

function layout(colors, more) {
  const axis = {
    gridcolor: colors.line, zeroline: false, linecolor: colors.line, tickcolor: colors.line,
    tickfont: { size: 11, color: colors.soft }, fixedrange: true, automargin: false,
  };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, dragmode: false, hovermode: "x unified",
    font: { family: colors.font, size: 12, color: colors.ink },
    margin: { l: 44, r: 12, t: 18, b: 40 },
    hoverlabel: { bgcolor: colors.panel, bordercolor: colors.line, font: { family: colors.font, size: 12, color: colors.ink } },
    ...more,
    xaxis: { ...axis, type: "date", showgrid: false, ticks: "outside", ticklen: 4, hoverformat: "%a %e %b %H:%M", ...more.xaxis },
    yaxis: { ...axis, rangemode: "tozero", nticks: 6, ...more.yaxis },
  };
}

const upright = (x, color, dash, width = 1) => ({
  type: "line", x0: x, x1: x, xref: "x", yref: "paper", y0: 0, y1: 1, line: { color, dash, width }, layer: "below",
});

// The fan ---------------------------------------------------------------------------------------------------

/** When each bucket of what was sold begins. */
export const startsOf = ({ actuals, resolution_ms: width }) =>
  actuals.starts_ms ?? actuals.units.map((_, i) => actuals.start_ms + i * width);

/** Steps' start times and quantiles, led in by the last bucket that was sold so that the fan grows out of it. */
function fanPoints(item) {
  const { forecast, actuals, resolution_ms: width } = item;
  const x = forecast.starts_ms;
  const starts = startsOf(item);
  const index = starts.findLastIndex((ms) => ms < forecast.cutoff_ms);
  const last = index >= 0 && forecast.cutoff_ms - starts[index] <= NEXT * width ? actuals.units[index] : null;
  if (last === null || last === undefined) return { x, rows: forecast.quantiles };
  return { x: [starts[index], ...x], rows: forecast.quantiles.map((row) => [last, ...row]) };
}

function bands(x, rows, colors) {
  const edges = [[0, 6], [1, 5], [2, 4]];
  const invisible = { mode: "lines", line: { width: 0 }, hoverinfo: "skip" };
  return edges.flatMap(([low, high]) => [
    { x, y: rows[low], ...invisible },
    { x, y: rows[high], ...invisible, fill: "tonexty", fillcolor: colors.band },
  ]);
}

/** Indices of points without a gap between them: what nobody forecast is not drawn. */
function unbroken(startMs, width) {
  const runs = [];
  startMs.forEach((ms, i) => {
    if (i && ms - startMs[i - 1] <= NEXT * width) runs.at(-1).push(i);
    else runs.push([i]);
  });
  return runs;
}

/** The past 80 % bands as one shape each; a lone bucket is a thin upright one. */
function pastBand(past, runs, colors) {
  const [x, y] = [[], []];
  for (const run of runs) {
    const back = [...run].reverse();
    x.push(...run.map((i) => past.start_ms[i]), ...back.map((i) => past.start_ms[i]), null);
    y.push(...run.map((i) => past.p90[i]), ...back.map((i) => past.p10[i]), null);
  }
  const width = runs.some((run) => run.length === 1) ? 1.5 : 0;
  return { x, y, mode: "lines", line: { width, color: colors.past }, fill: "toself", fillcolor: colors.past, hoverinfo: "skip" };
}

function fanTraces(item, lead, colors) {
  const traces = [];
  const past = item.past[lead];
  if (past && past.start_ms.length) {
    const runs = unbroken(past.start_ms, item.resolution_ms);
    traces.push(pastBand(past, runs, colors));
    const alone = new Set(runs.filter((run) => run.length === 1).flat());
    const order = runs.flatMap((run) => [...run, null]);
    const at = (values) => order.map((i) => (i === null ? null : values[i]));
    traces.push({
      x: at(past.start_ms), y: at(past.p50), mode: "lines+markers", connectgaps: false,
      line: { color: colors.soft, width: 1.2, dash: "dot" },
      marker: { color: colors.soft, size: order.map((i) => (alone.has(i) ? 4 : 0)) },
      customdata: order.map((i) => (i === null ? null : [past.p10[i], past.p90[i]])),
      hovertemplate: "%{y:.3~g}, 80 %: %{customdata[0]:.3~g} to %{customdata[1]:.3~g}<extra>forecast then</extra>",
    });
  }
  traces.push({
    x: startsOf(item), y: item.actuals.units, mode: "lines", connectgaps: false, line: { color: colors.ink, width: 1.6 },
    hovertemplate: "%{y:.4~g}<extra>sold</extra>",
  });
  if (item.forecast?.steps) {
    const { x, rows } = fanPoints(item);
    traces.push(...bands(x, rows, colors));
    const lead_in = x.length - item.forecast.quantiles[0].length;
    traces.push({
      x: x.slice(lead_in), y: rows[3].slice(lead_in), mode: "lines", line: { color: colors.accent, width: 2.2 },
      customdata: rows[1].slice(lead_in).map((low, i) => [low, rows[5][i + lead_in]]),
      hovertemplate: "%{y:.3~g}, 80 %: %{customdata[0]:.3~g} to %{customdata[1]:.3~g}<extra>forecast</extra>",
    });
  }
  return traces;
}

function fanTop(item, lead, fromMs) {
  const recent = (values, start, step) => values.filter((value, i) => value !== null && start(i) >= fromMs && step);
  const past = item.past[lead];
  const starts = startsOf(item);
  const tops = recent(item.actuals.units, (i) => starts[i], true);
  if (past) tops.push(...recent(past.p90, (i) => past.start_ms[i], true));
  if (item.forecast?.steps) tops.push(...item.forecast.quantiles[6]);
  return Math.max(1, ...tops) * 1.08;
}

/**
 * An item's days, all moved by as much, so that plotly, which knows no zone, names each by its own date. Their lengths
 * stay: a day of 25 hours is drawn as one.
 */
function byLocalDate(item) {
  if (item.resolution_ms !== DAY_MS) return item;
  const starts = [...startsOf(item), ...(item.forecast?.starts_ms ?? [])];
  const shift = Math.max(0, ...starts.map((ms) => DAY_MS + format.zoneOffset(ms, item.time_zone))) - DAY_MS;
  if (!starts.length || !shift) return item;
  const move = (ms) => ms + shift;
  const past = Object.fromEntries(Object.entries(item.past).map(([lead, one]) => [lead, { ...one, start_ms: one.start_ms.map(move) }]));
  return {
    ...item, past, time_zone: "UTC",
    actuals: { ...item.actuals, start_ms: move(item.actuals.start_ms), starts_ms: startsOf(item).map(move) },
    forecast: item.forecast && {
      ...item.forecast, cutoff_ms: move(item.forecast.cutoff_ms), starts_ms: item.forecast.starts_ms.map(move), ends_at_ms: move(item.forecast.ends_at_ms),
    },
    promotions: item.promotions.map((one) => ({ ...one, starts_ms: move(one.starts_ms), ends_ms: move(one.ends_ms) })),
  };
}

/** Ticks of days: the shop's own dates, at the midnights where they begin. */
function dayTicks(item, from, end, most) {
  const starts = [...startsOf(item), ...(item.forecast?.starts_ms ?? [])].filter((ms) => ms >= from && ms <= end);
  const days = [...new Set(starts)].sort((a, b) => a - b);
  const every = Math.max(1, Math.ceil(days.length / most));
  const tickvals = days.filter((_, i) => i % every === 0);
  return { tickmode: "array", tickvals, ticktext: tickvals.map((ms) => format.localDay(ms, item.time_zone)) };
}

function fanAxis(item, from, end, narrow) {
  const most = narrow ? 4 : 8;
  if (item.resolution_ms === DAY_MS) {
    return { range: [from, end], ...dayTicks(item, from, end, most), hoverformat: "%a %e %b" };
  }
  const long = end - from > 4 * DAY_MS;
  const short = item.resolution_ms < HOUR_MS ? "%H:%M" : "%H:%M\n%a %e %b";
  return { range: [from, end], nticks: narrow ? 5 : 9, tickformat: long ? "%a %e %b" : short };
}

/** Draw (or update) one item's fan chart; a `note` says why there is no fan. */
export async function drawFan(node, shown, { steps, lead, note }) {
  const item = byLocalDate(shown);
  const Plotly = await plotly();
  const colors = palette();
  const width = item.resolution_ms;
  const last = startsOf(item).at(-1);
  const soldEnd = last === undefined ? item.actuals.start_ms : last + width;
  const cutoff = item.forecast ? item.forecast.cutoff_ms : soldEnd;
  const end = item.forecast?.steps ? item.forecast.ends_at_ms : Math.max(cutoff, soldEnd);
  // A young shop's history begins where it does.
  const first = item.actuals.units.findIndex((units) => units !== null);
  const known = first < 0 ? cutoff : startsOf(item)[first];
  const from = Math.max(cutoff - steps * width, Math.min(known, cutoff - MIN_STEPS * width));
  const promotions = item.promotions.filter((promotion) => promotion.ends_ms > from && promotion.starts_ms < end);
  const shapes = promotions.map((promotion) => ({
    type: "rect", x0: Math.max(from, promotion.starts_ms), x1: Math.min(end, promotion.ends_ms), yref: "paper", y0: 0, y1: 1,
    fillcolor: colors.promo, line: { width: 0 }, layer: "below",
  }));
  const apart = (end - from) * (node.clientWidth < 500 ? 0.16 : 0.08);
  const named = promotions.filter((promotion, i) => i === 0 || promotion.starts_ms - Math.max(from, promotions[i - 1].starts_ms) > apart);
  const annotations = named.map((promotion) => ({
    x: Math.max(from, promotion.starts_ms), y: 1, yref: "paper", xanchor: "left", yanchor: "bottom", showarrow: false, xshift: -3,
    text: `−${Math.round(100 * promotion.discount)} %`, font: { size: 11, color: colors.soft },
  }));
  shapes.push(upright(cutoff, colors.soft, "dot"));
  if (note) {
    annotations.push({
      x: 0.5, xref: "paper", y: 0.96, yref: "paper", xanchor: "center", yanchor: "top", showarrow: false,
      text: note, font: { size: 13, color: colors.soft }, bgcolor: colors.panel, borderpad: 4,
    });
  }
  const more = {
    shapes, annotations,
    xaxis: fanAxis(item, from, end, node.clientWidth < 500),
    // A note has room above what was sold.
    yaxis: { range: [0, fanTop(item, lead, from) * (note ? 1.25 : 1)] },
  };
  await Plotly.react(node, fanTraces(item, lead, colors), layout(colors, more), CONFIG);
}

// The error -------------------------------------------------------------------------------------------------

/** Markers worth a line: a swap right after its promotion says nothing more. */
function told(markers) {
  return markers.filter((marker) => marker.kind !== "swapped" && marker.kind !== "rejected").slice(-MAX_LABELS);
}

const MARK = { drift: "drift", promoted: "weights", rolled_back: "back to" };

/** Draw (or update) the error of the model against seasonal naive. */
export async function drawError(node, errors) {
  const Plotly = await plotly();
  const colors = palette();
  const curve = (y, name, line, more = {}) => ({
    x: errors.at_ms, y, mode: "lines", line, hovertemplate: `%{y:.3f}<extra>${name}</extra>`, ...more,
  });
  const traces = [
    curve(errors.seasonal_naive_wql, "seasonal naive", { color: colors.naive, width: 1.4, dash: "dash" }),
    curve(errors.wql, "freshet", { color: colors.accent, width: 2.2 }, { fill: "tonexty", fillcolor: colors.band }),
  ];
  const marks = told(errors.markers);
  const color = (kind) => (kind === "drift" ? colors.bad : colors.accent);
  const shapes = marks.map((mark) => upright(mark.at_ms, color(mark.kind), mark.kind === "drift" ? "dot" : "solid", 1.2));
  const span = errors.at_ms.length ? errors.at_ms.at(-1) - errors.at_ms[0] : 0;
  const annotations = marks.map((mark, i) => {
    const late = errors.at_ms.length && mark.at_ms > errors.at_ms[0] + 0.75 * span;
    return {
      x: mark.at_ms, y: 1, yref: "paper", yshift: -16 * (i % 3), xanchor: late ? "right" : "left", yanchor: "top", showarrow: false,
      xshift: late ? -4 : 4, text: label(mark), font: { size: 11, color: color(mark.kind) }, bgcolor: colors.panel, borderpad: 1,
    };
  });
  const highest = Math.max(0.01, ...errors.wql.filter((v) => v !== null), ...errors.seasonal_naive_wql.filter((v) => v !== null));
  const more = {
    shapes, annotations, margin: { l: 44, r: 12, t: 8, b: span > 2 * DAY_MS ? 24 : 40 },
    yaxis: { range: [0, highest * 1.25], tickformat: ".2f" },
    xaxis: { nticks: node.clientWidth < 500 ? 4 : 8, tickformat: span > 2 * DAY_MS ? "%e %b" : "%H:%M\n%e %b" },
  };
  await Plotly.react(node, traces, layout(colors, more), CONFIG);
}

/** Plotly reads a little markup in annotations, so anything that could be some is taken out of names. */
function label(mark) {
  const name = format.version(String(mark.label)).replace(/[<>&$]/g, " ");
  return `${MARK[mark.kind] ?? format.words(mark.kind)} ${name.length > 18 ? `${name.slice(0, 17)}…` : name}`;
}
