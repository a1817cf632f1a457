// The list of items: search, sort, pages, sparklines, and moving through it with the keyboard.

import { ask } from "./api.js";
import { byId, el, empty, options, say } from "./dom.js";
import * as format from "./format.js";
import { sparkline } from "./spark.js";

const PAGE_SIZE = 25;
const SEARCH_PAUSE_MS = 200;

export class ItemList {
  constructor({ onPick, refresh }) {
    this.onPick = onPick;
    this.refresh = refresh;
    this.page = 0;
    this.pages = 1;
    this.chosen = null;
    this.list = byId("items");
    let pause = null;
    byId("search").addEventListener("input", () => {
      clearTimeout(pause);
      pause = setTimeout(() => this.turnTo(0), SEARCH_PAUSE_MS);
    });
    for (const id of ["category", "sort"]) byId(id).addEventListener("change", () => this.turnTo(0));
    byId("previous").addEventListener("click", () => this.turnTo(this.page - 1));
    byId("next").addEventListener("click", () => this.turnTo(this.page + 1));
    this.list.addEventListener("keydown", (event) => this.move(event));
  }

  turnTo(page) {
    this.page = Math.max(0, Math.min(page, this.pages - 1));
    this.list.scrollTop = 0;
    this.refresh();
  }

  async load() {
    const [sort, order] = byId("sort").value.split(":");
    const query = new URLSearchParams({
      q: byId("search").value, category: byId("category").value, sort, order, page: this.page, page_size: PAGE_SIZE,
    });
    this.show(await ask(`/api/items?${query}`));
  }

  show(answer) {
    this.page = answer.page;
    this.pages = Math.max(1, Math.ceil(answer.total / answer.page_size));
    options(byId("category"), "All categories", answer.categories);
    const first = answer.page * answer.page_size;
    say(byId("list-count"), answer.total ? `${format.count(answer.total)} series` : "");
    say(byId("page"), answer.total ? `${first + 1} to ${first + answer.items.length} of ${format.count(answer.total)}` : "");
    byId("previous").disabled = answer.page === 0;
    byId("next").disabled = answer.page >= this.pages - 1;
    const focused = document.activeElement?.closest?.(".row")?.dataset.item;
    if (!answer.items.length) {
      const searching = byId("search").value || byId("category").value;
      this.list.replaceChildren(el("li", {}, searching
        ? empty("Nothing matches", "Try fewer letters, or another category.")
        : empty("Waiting for the first items", "They appear as soon as orders have been folded into windows.")));
      return;
    }
    this.list.replaceChildren(...answer.items.map((item) => this.row(item)));
    if (focused) this.row_of(focused)?.focus({ preventScroll: true });
    if (this.chosen === null) this.onPick(answer.items[0].item_id, { quiet: true });
  }

  row(item) {
    const offset = item.forecast
      ? Math.max(0, Math.round((item.spark.start_ms + item.spark.units.length * this.width - item.forecast.cutoff_ms) / this.width)) : 0;
    const status = item.status === "ok" ? null : el("span", { class: `chip ${item.status}` }, format.words(item.status));
    const meta = [item.category, item.region === "-" ? "" : item.region].filter(Boolean).join(" · ");
    const label = `${item.title}, ${meta}: sold ${format.units(item.units_day)} in 24 hours, ` +
      `${format.units(item.expected_day)} expected in the next 24`;
    return el("li", {}, el("a", {
      class: "row", href: `#item=${encodeURIComponent(item.item_id)}`, "data-item": item.item_id, "aria-label": label,
      "aria-current": item.item_id === this.chosen ? "true" : null,
    },
    el("span", { class: "name" }, el("span", { class: "title" }, item.title), el("span", { class: "meta" }, meta, status ? " " : "", status)),
    sparkline(item.spark.units, item.forecast, Math.min(offset, item.spark.units.length)),
    el("span", { class: "figure" }, format.units(item.units_day)),
    el("span", { class: "expected" }, el("b", {}, format.units(item.expected_day)), el("small", {}, format.signedPercent(item.change)))));
  }

  get width() {
    return this.resolutionMs ?? 3_600_000;
  }

  row_of(itemId) {
    return [...this.list.querySelectorAll(".row")].find((row) => row.dataset.item === itemId);
  }

  mark(itemId) {
    this.chosen = itemId;
    for (const row of this.list.querySelectorAll(".row")) {
      if (row.dataset.item === itemId) row.setAttribute("aria-current", "true");
      else row.removeAttribute("aria-current");
    }
  }

  move(event) {
    const step = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1 }[event.key];
    if (!step) return;
    const rows = [...this.list.querySelectorAll(".row")];
    const at = rows.indexOf(document.activeElement);
    const next = rows[Math.max(0, Math.min(rows.length - 1, at + step))];
    event.preventDefault();
    next?.focus();
  }
}
