// One item: the live fan chart, what is known about the item, and the forecast as a table.

import { ask } from "./api.js";
import { drawFan, startsOf } from "./charts.js";
import { byId, el, empty, say, table, tableBehind } from "./dom.js";
import * as format from "./format.js";
import { DAY_MS, HOUR_MS, widthOf } from "./widths.js";

const chosen = (name) => Number(document.querySelector(`input[name="${name}"]:checked`).value);

/** Name the choices of a switch; what is chosen stays. */
function name(id, texts) {
  byId(id).querySelectorAll("label").forEach((label, i) => {
    label.hidden = texts[i] === undefined;
    say(label.querySelector("span"), texts[i] ?? "");
  });
}

export class ItemPanel {
  constructor({ onWidth }) {
    this.itemId = null;
    this.item = null;
    this.width = null;
    byId("width").addEventListener("change", (event) => onWidth(Number(event.target.value)));
    this.refreshTable = tableBehind(byId("fan-data"), () => this.table());
    for (const id of ["span", "lead"]) byId(id).addEventListener("change", () => this.draw());
    byId("fan").append(empty("Waiting for the first forecasts", "The chart draws itself as soon as an item has a forecast."));
  }

  async load() {
    if (this.itemId === null) return;
    const [wanted, width] = [this.itemId, this.width];
    const query = width === null ? "" : `?resolution_ms=${width}`;
    const item = await ask(`/api/items/${encodeURIComponent(wanted)}${query}`).catch((error) => {
      if (error.status === 404) say(byId("item-meta"), "There is no such item (yet).");
      if (error.status === 400 && width !== null) this.width = null;
      throw error;
    });
    if (wanted !== this.itemId || width !== this.width) return;
    this.item = item;
    await this.draw();
  }

  /** The choice of steps, those of a sale last, for they come and go. */
  choices() {
    const { item } = this;
    const widths = item.resolutions.map((one) => one.resolution_ms);
    if (!widths.includes(item.resolution_ms)) widths.push(item.resolution_ms);
    widths.sort((a, b) => (a < HOUR_MS) - (b < HOUR_MS) || a - b);
    const box = byId("width");
    box.hidden = widths.length < 2;
    const shown = [...box.querySelectorAll("input")].map((input) => Number(input.value));
    if (String(shown) !== String(widths)) {
      const legend = box.querySelector("legend");
      box.replaceChildren(legend, ...widths.map((ms) => el("label", {},
        el("input", { type: "radio", name: "width", value: ms }), el("span", {}, widthOf(ms).plural))));
    }
    for (const input of box.querySelectorAll("input")) input.checked = Number(input.value) === item.resolution_ms;
  }

  async draw() {
    const { item } = this;
    if (item === null) return;
    const about = item.about;
    say(byId("item-title"), about.title);
    say(byId("item-meta"), [about.category, about.brand, item.region === "-" ? "" : item.region, item.sku].filter(Boolean).join(" · "));
    const { spans, leads } = widthOf(item.resolution_ms);
    this.choices();
    name("span", spans.map(([, text]) => text));
    name("lead", leads.map(([, text]) => text));
    say(byId("lead-name"), leads[chosen("lead")][2]);
    byId("fan").querySelector(".empty")?.remove();
    byId("fan").setAttribute("aria-label", this.inWords());
    this.facts();
    this.refreshTable();
    await drawFan(byId("fan"), item, { steps: spans[chosen("span")][0], lead: this.lead(), note: this.missing() });
    byId("fan").dataset.item = item.item_id;
    byId("fan").dataset.width = item.resolution_ms;
  }

  /** Which of the past forecasts are shown. */
  lead() {
    return widthOf(this.item.resolution_ms).leads[chosen("lead")][0];
  }

  /** Why there is no fan; empty where there is one. */
  missing() {
    const { forecast, resolution_ms: width } = this.item;
    if (!forecast) return `no forecast ${widthOf(width).each} yet`;
    return forecast.steps ? "" : "warming up: the shop is too young for a forecast";
  }

  /** What the chart says, for those who do not see it. */
  inWords() {
    const { item } = this;
    if (this.missing()) return `${item.about.title}: sold so far, ${this.missing()}`;
    const steps = Math.min(24, item.forecast.steps);
    const expected = item.forecast.expected.slice(0, steps).reduce((sum, value) => sum + value, 0);
    return `${item.about.title}: about ${format.units(expected)} units expected in the next ${steps} ${widthOf(item.resolution_ms).plural.toLowerCase()} from ` +
      `${this.time(item.forecast.cutoff_ms)}; the table below has every step`;
  }

  /** A time, of days the shop's own date. */
  time(ms) {
    return this.item.resolution_ms === DAY_MS ? format.localDay(ms, this.item.time_zone) : format.dayTime(ms);
  }

  facts() {
    const { item } = this;
    const { about, forecast } = item;
    const past = this.pastCoverage();
    const rows = [
      ["Price", about.unit_price === null ? null : about.unit_price.toFixed(2)],
      ["In stock", about.on_hand === null ? null : format.units(about.on_hand)],
      ["Forecast from", forecast ? this.time(forecast.cutoff_ms) : null],
      ["Weights", format.version(forecast?.weights_version)],
      ["Status", forecast && forecast.status !== "ok" ? format.words(forecast.status) : null],
      ["Served", forecast?.served ? format.servedWith(forecast.served) : null],
      ["Quantiles", forecast?.calibrated ? "calibrated: at the levels that held lately" : null],
      ["Level factor", forecast && forecast.level_factor !== 1 ? `× ${forecast.level_factor.toFixed(2)}` : null],
      ["Within its 80 %", past],
    ].filter(([, value]) => value);
    byId("facts").replaceChildren(...rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  }

  /** How often what was sold lay between the 10 % and 90 % quantiles that had been forecast. */
  pastCoverage() {
    const { item } = this;
    const past = item.past[this.lead()];
    if (!past) return null;
    const soldAt = new Map(startsOf(item).map((ms, i) => [ms, item.actuals.units[i]]));
    let [inside, all] = [0, 0];
    past.start_ms.forEach((ms, i) => {
      const sold = soldAt.get(ms);
      if (sold === null || sold === undefined) return;
      all += 1;
      if (sold >= past.p10[i] && sold <= past.p90[i]) inside += 1;
    });
    return all >= 12 ? `${format.percent(inside / all)} of ${all}` : null;
  }

  table() {
    const { item } = this;
    if (!item?.forecast?.steps) return empty(item ? this.missing() : "No forecast yet", "");
    const { levels, quantiles, expected, starts_ms: starts } = item.forecast;
    const days = item.resolution_ms === DAY_MS;
    const header = [days ? "Day" : "Bucket, UTC", "mean", ...levels.map((level) => format.percent(level))];
    const rows = expected.map((mean, i) => [
      days ? format.localDay(starts[i], item.time_zone) : format.isoTime(starts[i]), format.units(mean), ...quantiles.map((row) => format.units(row[i])),
    ]);
    return table(header, rows);
  }
}
