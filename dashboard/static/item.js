// One item: the live fan chart, what is known about the item, and the forecast as a table.

import { ask } from "./api.js";
import { drawFan } from "./charts.js";
import { byId, el, empty, say, table, tableBehind } from "./dom.js";
import * as format from "./format.js";

const LEAD_NAMES = { step: "forecast an hour before", day: "forecast a day before" };

const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;

export class ItemPanel {
  constructor() {
    this.itemId = null;
    this.item = null;
    this.refreshTable = tableBehind(byId("fan-data"), () => this.table());
    for (const id of ["span", "lead"]) byId(id).addEventListener("change", () => this.draw());
    byId("fan").append(empty("Waiting for the first forecasts", "The chart draws itself as soon as an item has a forecast."));
  }

  async load() {
    if (this.itemId === null) return;
    const wanted = this.itemId;
    const item = await ask(`/api/items/${encodeURIComponent(wanted)}`).catch((error) => {
      if (error.status === 404) say(byId("item-meta"), "There is no such item (yet).");
      throw error;
    });
    if (wanted !== this.itemId) return;
    this.item = item;
    await this.draw();
  }

  async draw() {
    const { item } = this;
    if (item === null) return;
    const about = item.about;
    say(byId("item-title"), about.title);
    say(byId("item-meta"), [about.category, about.brand, item.region === "-" ? "" : item.region, item.sku].filter(Boolean).join(" · "));
    say(byId("lead-name"), LEAD_NAMES[chosen("lead")]);
    byId("fan").querySelector(".empty")?.remove();
    byId("fan").setAttribute("aria-label", this.inWords());
    this.facts();
    this.refreshTable();
    await drawFan(byId("fan"), item, { days: Number(chosen("span")), lead: chosen("lead") });
    byId("fan").dataset.item = item.item_id;
  }

  /** What the chart says, for those who do not see it. */
  inWords() {
    const { item } = this;
    if (!item.forecast) return `${item.about.title}: sold so far, no forecast yet`;
    const steps = Math.min(24, item.forecast.steps);
    const expected = item.forecast.expected.slice(0, steps).reduce((sum, value) => sum + value, 0);
    return `${item.about.title}: about ${format.units(expected)} units expected in the next ${steps} steps from ` +
      `${format.dayTime(item.forecast.cutoff_ms)}; the table below has every step`;
  }

  facts() {
    const { item } = this;
    const { about, forecast } = item;
    const past = this.pastCoverage();
    const rows = [
      ["Price", about.unit_price === null ? null : about.unit_price.toFixed(2)],
      ["In stock", about.on_hand === null ? null : format.units(about.on_hand)],
      ["Forecast from", forecast ? format.dayTime(forecast.cutoff_ms) : null],
      ["Weights", format.version(forecast?.weights_version)],
      ["Status", forecast && forecast.status !== "ok" ? format.words(forecast.status) : null],
      ["Level factor", forecast && forecast.level_factor !== 1 ? `× ${forecast.level_factor.toFixed(2)}` : null],
      ["Within its 80 %", past],
    ].filter(([, value]) => value);
    byId("facts").replaceChildren(...rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  }

  /** How often what was sold lay between the 10 % and 90 % quantiles that had been forecast. */
  pastCoverage() {
    const { item } = this;
    const past = item.past[chosen("lead")];
    if (!past) return null;
    let [inside, all] = [0, 0];
    past.start_ms.forEach((ms, i) => {
      const sold = item.actuals.units[(ms - item.actuals.start_ms) / item.resolution_ms];
      if (sold === null || sold === undefined) return;
      all += 1;
      if (sold >= past.p10[i] && sold <= past.p90[i]) inside += 1;
    });
    return all >= 12 ? `${format.percent(inside / all)} of ${all}` : null;
  }

  table() {
    const { item } = this;
    if (!item?.forecast) return empty("No forecast yet", "");
    const { levels, quantiles, expected, cutoff_ms: cutoff } = item.forecast;
    const header = ["Bucket, UTC", "mean", ...levels.map((level) => format.percent(level))];
    const rows = expected.map((mean, i) => [
      format.isoTime(cutoff + i * item.resolution_ms), format.units(mean), ...quantiles.map((row) => format.units(row[i])),
    ]);
    return table(header, rows);
  }
}
