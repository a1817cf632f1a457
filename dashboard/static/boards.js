// Flash sales, drift cards and the life of each weights version.

import { ask } from "./api.js";
import { byId, el, empty, say } from "./dom.js";
import * as format from "./format.js";
import { errorSpark } from "./spark.js";
import { widthOf } from "./widths.js";

const HIGH_CHANCE = 0.5;

// Flash sales -------------------------------------------------------------------------------------------------

export async function loadFlash() {
  const { sales, now_ms: now } = await ask("/api/flash-sales");
  const counts = ["running", "announced", "ended"].map((state) => [sales.filter((sale) => sale.state === state).length, state]);
  say(byId("flash-count"), counts.filter(([count]) => count).map(([count, state]) => `${count} ${state}`).join(", "));
  byId("flash").replaceChildren(...(sales.length
    ? sales.slice(0, 5).map((sale) => saleCard(sale, now))
    : [empty("No flash sale now", "Sales announced on the promotions topic appear here two days before they start.")]));
}

function when(sale, now) {
  if (sale.state === "announced") return `starts in ${format.duration(sale.starts_ms - now)}, for ${format.duration(sale.ends_ms - sale.starts_ms)}`;
  if (sale.state === "running") return `ends in ${format.duration(sale.ends_ms - now)}`;
  return `ended ${format.ago(sale.ends_ms, now)}`;
}

function saleCard(sale, now) {
  const since = sale.by_minute_from_ms === null ? "" : `, by the minute since ${format.shortTime(sale.by_minute_from_ms)}`;
  const share = sale.sell_through === null ? "" : `, ${format.percent(sale.sell_through)} of what there was`;
  const total = sale.sold === null ? null : `${format.units(sale.sold)} sold${share}${since}`;
  return el("article", { class: "card" },
    el("div", { class: "line" },
      el("h3", {}, sale.title), el("span", { class: "discount" }, `−${Math.round(100 * sale.discount)} %`),
      el("span", { class: `chip ${sale.state}` }, sale.state), el("span", { class: "right" }, when(sale, now))),
    sale.state === "announced" ? null : total && el("p", { class: "note" }, total),
    sale.items.length ? el("div", { class: "bars" },
      el("div", { class: "bar-row titles" }, el("span", {}, "region"), el("span", {}, "sell-through"), el("span", {}, "left"),
        el("span", {}, "sold out by"), el("span", {}, "chance")),
      sale.items.slice(0, 4).map((item) => saleRow(item, sale))) : null,
    sale.num_items > 4 ? el("p", { class: "note" }, `and ${sale.num_items - 4} more`) : null);
}

function eta(item, sale) {
  if (item.on_hand === 0) return "sold out";
  if (sale.state === "ended" || item.eta_ms === null) return "–";
  const [soon, likely, late] = item.eta_ms;
  if (likely === null) return soon === null ? "not in sight" : `after ${format.shortTime(soon)}`;
  return late === null ? format.shortTime(likely) : `${format.shortTime(likely)} ± ${format.duration((late - soon) / 2)}`;
}

function saleRow(item, sale) {
  const share = item.sell_through ?? 0;
  const bar = el("div", { class: "bar", role: "img", "aria-label": `${format.percent(item.sell_through)} sold` }, el("i"));
  bar.firstChild.style.width = `${100 * share}%`;
  return el("div", { class: "bar-row" },
    el("span", { class: "where", title: item.item_id }, item.region && item.region !== "-" ? item.region : item.item_id), bar,
    el("span", {}, format.units(item.on_hand)), el("span", {}, eta(item, sale)),
    el("span", { class: item.chance >= HIGH_CHANCE ? "chance high" : "chance" }, format.percent(item.chance)));
}

// Drift -------------------------------------------------------------------------------------------------------

export async function loadDrift(now) {
  const { cards, alerts } = await ask("/api/drift");
  const active = cards.filter((card) => card.state !== "stable").length;
  say(byId("drift-count"), cards.length ? (active ? `${active} of ${cards.length} segments not stable` : "all stable again") : "");
  const others = alerts.filter((alert) => !alert.type.endsWith(".drift"));
  byId("drift").replaceChildren(
    ...(cards.length ? cards.slice(0, 6).map((card) => driftCard(card, now))
      : [empty("No drift found", "Forecasts are held against what was sold, segment by segment; a change shows up here.")]),
    ...others.slice(0, 4).map((alert) => alertCard(alert, now)));
}

function driftCard(card, now) {
  const spark = errorSpark(card.error.at_ms, card.error.wql, card.error.seasonal_naive_wql, card.onset_ms);
  const facts = [`${card.kind} shift of ${card.size.toFixed(1).replace("-", "−")} σ`, `since ${format.dayTime(card.onset_ms)}`, `found by ${card.detector}`];
  const body = el("div", {},
    el("p", { class: "say" }, card.description || facts[0]),
    el("p", { class: "note" }, facts.join(" · ")),
    card.ladder && el("ol", { class: "ladder" }, rungs(card).map(([name, text]) => el("li", {}, el("b", {}, name), ` ${text}`))),
    card.action && card.state !== "stable" ? el("p", { class: "do" }, card.action) : null);
  return el("article", { class: "card" },
    el("div", { class: "line" }, el("h3", {}, card.segment || "all items"), el("span", { class: `chip ${card.state}` }, card.state),
      el("span", { class: "right" }, format.ago(card.detected_at_ms, now))),
    spark ? el("div", { class: "drift-grid" }, body, el("div", {}, spark, el("p", { class: "spark-note" }, `error ${widthOf(card.error.resolution_ms).each}, and seasonal naive's`))) : body);
}

/** What was done about a drift, in order: found, served differently, gained, trained. */
function rungs(card) {
  const { served, training } = card.ladder;
  const found = [["Found", `${format.duration(card.ladder.found_after_ms)} after it began.`]];
  if (!served) found.push(["Served", "as ever: nothing did better on the newest sales."]);
  else {
    const until = served.until_ms === null ? "" : ` until ${format.dayTime(served.until_ms)}`;
    found.push(["Served", `differently from ${format.dayTime(served.since_ms)}${until}${served.how ? `, ${format.servedWith(served.how)}` : ""}.`]);
    if (served.gain !== null) found.push([served.gain < 0 ? "Lost" : "Gained", `${format.percent(Math.abs(served.gain))} of the error that the same weights would have made without that, over ${served.steps} scored steps.`]);
  }
  for (const answer of training) found.push(["Training", `${ANSWER[answer.status] ?? answer.status}${format.forSome(answer.segments)}${answer.reason ? `: ${answer.reason}` : ""}${answer.gain === null ? "." : ` (error ${format.signedPercent(-answer.gain)} on days that it never saw).`}`]);
  return found;
}

const ANSWER = { waiting: "asked for, waits for enough new sales", training: "is under way", trial: "no verdict yet, the new weights are watched",
  rejected: "the new weights are not better", promoted: "new weights serve", confirmed: "new weights serve, and were confirmed" };

const alertCard = (alert, now) => el("article", { class: "card" },
  el("div", { class: "line" }, el("h3", {}, alert.title), el("span", { class: `chip ${alert.severity === "info" ? "" : alert.severity === "critical" ? "drift" : "warning"}` }, alert.severity),
    el("span", { class: "right" }, format.ago(alert.starts_at_ms, now))),
  el("p", { class: "say" }, alert.description));

// Weights -----------------------------------------------------------------------------------------------------

export async function loadModels(now, open) {
  const { versions, serving, beside, rollbacks, pending } = await ask("/api/models");
  say(byId("models-count"), serving ? `serving ${[serving, beside].filter(Boolean).map(format.version).join(" and ")}` : "");
  byId("models").replaceChildren(...pending.map((request) => pendingEntry(request, now)), ...(versions.length || pending.length
    ? versions.slice(0, 8).map((version) => versionEntry(version, now, open))
    : [el("li", {}, empty(serving ? `Serving ${format.version(serving)}` : "Waiting for the first weights",
      "New weights are trained when drift is found, and by the schedule if there is one. Each one's verdict, swap and effect is told here."))]),
  ...rollbacks.filter((event) => !versions.some((version) => version.rolled_back_at_ms === event.at_ms)).slice(0, 3)
    .map((event) => el("li", { class: "version" }, el("div", { class: "line" }, el("h3", {}, `Back to ${format.version(event.version)}${format.forSome(event.segments)}`),
      el("span", { class: "right" }, format.ago(event.at_ms, now))), event.reason ? el("p", { class: "story" }, event.reason) : null)));
}

function askedFor({ reason, segments }) {
  const where = segments.length ? ` in ${segments.slice(0, 3).join(", ")}${segments.length > 3 ? " and more" : ""}` : "";
  return `Asked for by ${reason}${where}.`;
}

const pendingEntry = (request, now) => el("li", { class: "version" },
  el("div", { class: "line" }, el("h3", {}, request.reason === "rollback" ? "Roll-back" : "New weights"),
    el("span", { class: "chip training" }, "asked for"), el("span", { class: "right" }, format.ago(request.requested_at_ms, now))),
  el("p", { class: "story note" }, `${askedFor(request)} Nothing has answered yet.`));

function story(version) {
  const parts = [];
  if (version.asked) parts.push(askedFor(version.asked));
  if (version.parent) parts.push(`Trained from ${format.version(version.parent)}.`);
  if (version.swaps.length) {
    const pauses = version.swaps.map((swap) => swap.pause_ms).filter((pause) => pause !== null);
    const pause = pauses.length ? `, paused ${format.pause(Math.max(...pauses))}` : "";
    const workers = new Set(version.swaps.map((swap) => swap.worker)).size;
    parts.push(`Swapped in by ${workers === 1 ? "one worker" : `${workers} workers`}${pause}.`);
  }
  if (version.confirmed_at_ms !== null) parts.push(`Confirmed ${format.dayTime(version.confirmed_at_ms)}.`);
  if (version.rolled_back_at_ms !== null) parts.push(`Taken back ${format.dayTime(version.rolled_back_at_ms)}: ${version.rolled_back_because || "no reason given"}.`);
  return parts.join(" ");
}

function gained(version) {
  if (!version.gain) return null;
  const { gain, days } = version.gain;
  return el("p", { class: "story" }, "Against its parent on ", days === null ? "days" : `${format.count(days)} ${days === 1 ? "day" : "days"}`,
    " that it never saw: error ", el("span", { class: `delta ${gain > 0 ? "good" : "bad"}` }, format.signedPercent(-gain)));
}

const figure = (value) => (typeof value === "number" ? Number(value.toPrecision(4)).toString().replace("-", "−") : String(value ?? "–"));

function gateTable(lines) {
  const row = (line) => el("tr", {}, el("th", { scope: "row" }, format.words(line.name)), el("td", {}, figure(line.value)),
    el("td", {}, figure(line.threshold)), el("td", { class: line.ok ? "pass" : "fail" }, line.ok ? "holds" : "fails"));
  return el("div", { class: "table-box", tabindex: "0", role: "region", "aria-label": "The gate's verdict, line by line" }, el("table", {},
    el("thead", {}, el("tr", {}, ["condition", "found", "limit", ""].map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, lines.map(row))));
}

/** `open` remembers which verdicts a visitor opened, for the list is built anew with each change. */
function versionEntry(version, now, open) {
  const passed = version.gate.filter((line) => line.ok).length;
  const gate = version.gate.length ? el("details", { class: "more", open: open.has(version.version) },
    el("summary", {}, `Verdict: ${passed} of ${version.gate.length} conditions hold`), gateTable(version.gate)) : null;
  gate?.addEventListener("toggle", () => (gate.open ? open.add(version.version) : open.delete(version.version)));
  const told = story(version);
  return el("li", { class: `version ${version.status}` },
    el("div", { class: "line" }, el("h3", { title: version.version }, format.version(version.version)), el("span", { class: `chip ${version.status}` }, `${format.words(version.status)}${format.forSome(version.segments)}`),
      el("span", { class: "right" }, format.ago(version.at_ms, now))),
    told ? el("p", { class: "story note" }, told) : null,
    gained(version),
    version.status === "rejected" && version.reason ? el("p", { class: "story" }, `Rejected: ${version.reason}`) : null,
    version.status === "swap_failed" && version.reason ? el("p", { class: "story" }, `Not swapped in: ${version.reason}`) : null,
    gate);
}
