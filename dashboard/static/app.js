// The page's beginning: connects the live stream to the sections, and the keyboard and address bar to the items.

import { Live, Refresher, ask } from "./api.js";
import { loadDrift, loadFlash, loadModels } from "./boards.js";
import { drawError } from "./charts.js";
import { byId, el, empty, options, say, table, tableBehind } from "./dom.js";
import * as format from "./format.js";
import { ItemPanel } from "./item.js";
import { ItemList } from "./items.js";
import { offerRetrain } from "./retrain.js";
import { widthNamed, widthOf } from "./widths.js";

const CLOCK_TICK_MS = 500;
// What sold in a sale is counted anew so often, for its end comes without any record.
const SALES_TICK_MS = 5_000;
// A number that is older than so many buckets is shown as old.
const LATE_BUCKETS = 3;
const STATES = { live: "live", lost: "reconnecting", paused: "paused", waiting: "connecting", partial: "waiting for data" };

const known = { revisions: {}, clock: null, errors: null, narrow: matchMedia("(max-width: 1100px)") };
const openVerdicts = new Set();
const now = () => (known.clock ? known.clock.now_ms + (performance.now() - known.clock.at) * known.clock.speed : null);

// Totals --------------------------------------------------------------------------------------------------------

function figure(name, value, unit, sub, age, tone = "") {
  return el("div", {}, el("dt", {}, name),
    el("dd", { class: "value" }, value, unit ? el("small", {}, unit) : null), el("dd", { class: `sub ${tone}`.trim() }, sub), age);
}

/** How old a number is: filled in by `showAges`, for it grows while nothing comes. */
const age = (what, ms, lateMs = Infinity) => el("dd", { class: "age", "data-what": what, "data-ms": ms, "data-late": lateMs });

function showAges() {
  for (const node of document.querySelectorAll(".age[data-what]")) {
    const { what, ms, late } = node.dataset;
    const old = ms === undefined ? null : now() - Number(ms);
    say(node, old === null ? `no ${what} yet` : `${what} ${format.old(old)}`);
    node.classList.toggle("late", old !== null && old > Number(late));
  }
}

function gain(scores) {
  if (scores.wql === null || scores.seasonal_naive_wql === null || !scores.seasonal_naive_wql) return ["waiting for scores", ""];
  const change = scores.wql / scores.seasonal_naive_wql - 1;
  const side = change < 0 ? "below" : "above";
  return [`${format.percent(Math.abs(change))} ${side} seasonal naive`, change < 0 ? "good" : "bad"];
}

function showTotals(overview) {
  const { events, forecasts, scores, as_of: asOf } = overview;
  const lateMs = LATE_BUCKETS * overview.resolution_ms;
  const lost = [["duplicate", events.duplicate], ["late", events.late_dropped], ["broken", events.dead_letter], ["skipped", events.skipped],
    ["dead lines", events.lines_dead], ["conflicting", events.conflicting]]
    .filter(([, count]) => count > 0).map(([name, count]) => `${format.compact(count)} ${name}`);
  const [gained, tone] = gain(scores);
  byId("figures").replaceChildren(
    figure("Events", format.rate(events.per_s), "a second", el("span", { title: lost.join(", ") }, `${format.compact(events.read)} read${lost.length ? `, ${lost[0]}` : ""}`), age("sales", asOf.sales_ms, lateMs)),
    figure("Forecasts", format.rate(forecasts.per_s), "a second", `${format.compact(forecasts.seen)} for ${format.count(forecasts.items)} series`, age("forecasts", asOf.forecasts_ms, lateMs)),
    figure("Sold in 24 h", format.compact(overview.units_day), "units", `${format.compact(overview.revenue_day)} in sales`, age("sales", asOf.sales_ms, lateMs)),
    figure(`Error ${widthOf(overview.resolution_ms).each}`, format.error(scores.wql), "WQL", gained, age("scores", asOf.scores_ms, lateMs), tone),
    figure("Within the 80 % interval", format.percent(scores.coverage_80, 1), "", scores.matured ? `${format.compact(scores.matured)} scored` : "waiting for scores", age("scores", asOf.scores_ms, lateMs)),
    figure("Weights", el("span", { title: overview.weights_version }, format.version(overview.weights_version)), "", drifting(overview.drift), age("last alert", asOf.alerts_ms), overview.drift.active ? "bad" : ""),
  );
}

/** What workers said of their rounds: those that are not whole, and the cutoffs they skipped. */
function showRounds(resolutions) {
  const said = resolutions.filter((one) => one.round).flatMap(({ resolution_ms: ms, round }) => {
    const { name } = widthOf(ms);
    const partial = round.complete ? [] : [`of the newest ${name}, ${format.count(round.published)} of ${format.count(round.expected)} forecasts are out`];
    const skipped = round.skipped_day ? [`${format.count(round.skipped_day)} ${round.skipped_day === 1 ? `${name} was` : `${name}s were`} skipped in a day`] : [];
    return [...partial, ...skipped];
  });
  byId("rounds").hidden = !said.length;
  say(byId("rounds"), `Rounds: ${said.join("; ")}.`);
}

function drifting(drift) {
  if (drift.active) return `${drift.active} ${drift.active === 1 ? "segment drifts" : "segments drift"}`;
  return drift.warning ? `${drift.warning} on watch` : "no drift";
}

function showClock() {
  const ms = now();
  if (ms === null) return;
  say(byId("clock"), `${format.clock(ms)}`);
  byId("clock").dateTime = new Date(ms).toISOString();
  say(byId("speed"), format.speed(known.clock.speed));
  showAges();
}

function showProblem({ kafka, redis }, ago) {
  const told = (problem, what, seconds) => problem && (seconds === null ? problem : `${problem} (${what} shown ${format.seconds(seconds)} old)`);
  const problems = [told(kafka, "what topics say is", ago.kafka), told(redis, "sales are", ago.redis)].filter(Boolean);
  byId("problem").hidden = !problems.length;
  byId("problem").replaceChildren(...problems.map((text) => el("span", {}, text)));
  if (byId("connection").dataset.state === "live" && problems.length) showState("partial");
}

function showUnusable({ counts, newest }) {
  const kinds = Object.entries(counts);
  const total = kinds.reduce((sum, [, count]) => sum + count, 0);
  byId("unusable").hidden = !total;
  const each = kinds.map(([kind, count]) => `${format.count(count)} of ${kind}`).join(", ");
  say(byId("unusable"), `${format.count(total)} ${total === 1 ? "record" : "records"} could not be used: ${each}. The newest: ${newest}`);
}

// Sections ------------------------------------------------------------------------------------------------------

const panel = new ItemPanel({ onWidth: (ms) => choose(ms) });
const refreshList = new Refresher(() => list.load(), 2_000);
const refreshItem = new Refresher(() => panel.load(), 1_000);
const list = new ItemList({ onPick: (itemId) => pick(itemId), refresh: () => refreshList.want({ now: true }) });
const refreshErrors = new Refresher(loadErrors, 3_000);
const sections = {
  items: [refreshList, refreshItem],
  errors: [refreshErrors],
  flash: [new Refresher(loadFlash, 2_000)],
  drift: [new Refresher(() => loadDrift(now()), 3_000)],
  models: [new Refresher(() => loadModels(now(), openVerdicts), 3_000)],
};
const refreshErrorTable = tableBehind(byId("error-data"), errorTable);

async function loadErrors() {
  const [segment, width] = [byId("segment").value, byId("error-width").value];
  const errors = await ask(`/api/errors?${new URLSearchParams(width ? { segment, resolution_ms: width } : { segment })}`);
  known.errors = errors;
  showErrorWidths(errors);
  options(byId("segment"), "All items", errors.segments);
  options(byId("retrain-segment"), "The whole shop", errors.segments);
  const chart = byId("error");
  if (!errors.at_ms.length) {
    if (!chart.querySelector(".empty")) chart.append(empty("Waiting for the first scores", "A forecast is scored when the hours it was about are final."));
    return;
  }
  chart.querySelector(".empty")?.remove();
  const [model, naive] = [errors.wql.at(-1), errors.seasonal_naive_wql.at(-1)];
  chart.setAttribute("aria-label", `Error over time: now ${format.error(model)}, seasonal naive ${format.error(naive)}; the table below has every point`);
  refreshErrorTable();
  await drawError(chart, errors);
}

/** The choice of steps where more than one length is scored, and which one is shown. */
function showErrorWidths({ scored, resolution_ms: shown }) {
  const { name, each } = widthOf(shown);
  say(byId("error-note"), `Weighted quantile loss of forecasts ${each}${name === "day" ? "" : ", over the past day"}; lower is better.`);
  const select = byId("error-width");
  const widths = [...new Set([...scored, shown])].sort((a, b) => a - b);
  select.hidden = widths.length < 2;
  if (String([...select.options].map((option) => Number(option.value))) !== String(widths)) {
    select.replaceChildren(...widths.map((ms) => el("option", { value: ms }, widthOf(ms).plural)));
  }
  select.value = shown;
}

function errorTable() {
  const { errors } = known;
  if (!errors?.at_ms.length) return empty("No scores yet", "");
  const marks = new Map();
  for (const mark of errors.markers) {
    const row = errors.at_ms.findIndex((ms) => ms >= mark.at_ms);
    const at = row < 0 ? errors.at_ms.length - 1 : row;
    marks.set(at, [...(marks.get(at) ?? []), `${format.words(mark.kind)} ${mark.label}`]);
  }
  const rows = errors.at_ms.map((ms, i) => [
    format.isoTime(ms), format.error(errors.wql[i]), format.error(errors.seasonal_naive_wql[i]), format.error(errors.bucket_wql[i]),
    format.percent(errors.coverage_80[i], 1), (marks.get(i) ?? []).join(", "),
  ]);
  return table(["Up to, UTC", "past day", "seasonal naive", `that ${widthOf(errors.resolution_ms).name}`, "in 80 %", "events"], rows.reverse());
}

/** The item and the length of steps that an address names. */
function address() {
  const found = { item: null, width: null };
  for (const part of location.hash.slice(1).split("&")) {
    const [key, value = ""] = part.split("=", 2);
    try {
      if (key === "item") found.item = decodeURIComponent(value);
      if (key === "by") found.width = widthNamed(decodeURIComponent(value));
    } catch {
      // Not an address of ours.
    }
  }
  return found;
}

/** Show steps of another length, and keep that in the address. */
function choose(ms) {
  panel.width = ms === known.mainMs ? null : ms;
  keepAddress();
  refreshItem.want({ now: true });
}

function keepAddress() {
  if (panel.itemId === null) return;
  const by = panel.width === null ? "" : `&by=${widthOf(panel.width).name}`;
  history.replaceState(null, "", `#item=${encodeURIComponent(panel.itemId)}${by}`);
}

function pick(itemId, { show = false } = {}) {
  panel.itemId = itemId;
  list.mark(itemId);
  refreshItem.want({ now: true });
  if (!show) return;
  byId("item-title").focus({ preventScroll: true });
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (known.narrow.matches) byId("item").scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
}

// Live ----------------------------------------------------------------------------------------------------------

function update(overview) {
  known.clock = { ...overview.clock, at: performance.now() };
  known.mainMs = overview.resolution_ms;
  list.resolutionMs = overview.resolution_ms;
  showTotals(overview);
  showProblem(overview.problems, overview.read_s_ago);
  showUnusable(overview.unusable);
  showRounds(overview.resolutions);
  offerRetrain(overview.may_retrain);
  showAges();
  for (const [section, refreshers] of Object.entries(sections)) {
    if (known.revisions[section] === overview.revisions[section]) continue;
    known.revisions[section] = overview.revisions[section];
    for (const refresher of refreshers) refresher.want();
  }
}

function showState(state) {
  byId("connection").dataset.state = state;
  say(byId("connection-text"), STATES[state]);
  if (state === "lost") known.revisions = {};
}

function redraw() {
  panel.draw();
  if (known.errors?.at_ms.length) drawError(byId("error"), known.errors);
}

function switchTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try {
    localStorage.setItem("freshet-theme", root.dataset.theme);
  } catch {
    // Storage may be forbidden; the choice then lasts as long as the page.
  }
  redraw();
}

function fromAddress() {
  const { item, width } = address();
  if (item === null) return;
  // A link to an item keeps the length of steps that was chosen.
  if (width !== null) panel.width = width === known.mainMs ? null : width;
  pick(item, { show: true });
  if (panel.width !== null) keepAddress();
}

byId("theme").addEventListener("click", switchTheme);
byId("error-width").addEventListener("change", () => refreshErrors.want({ now: true }));
byId("segment").addEventListener("change", () => refreshErrors.want({ now: true }));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
window.addEventListener("hashchange", fromAddress);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) {
    if (event.key === "Escape" && event.target.id === "search") {
      event.target.value = "";
      list.turnTo(0);
    }
    return;
  }
  if (event.key === "/") {
    event.preventDefault();
    byId("search").focus();
  } else if (event.key === "t") switchTheme();
});
setInterval(() => {
  if (!document.hidden) showClock();
}, CLOCK_TICK_MS);
setInterval(() => sections.flash.forEach((refresher) => refresher.want()), SALES_TICK_MS);

fromAddress();
ask("/api/overview").then(update, () => {});
new Live({ onUpdate: update, onState: showState }).start();
