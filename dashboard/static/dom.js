// Small helpers to build the page. Data only ever becomes text nodes and attributes, never markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const el = (tag, attributes = {}, ...children) => build(document.createElement(tag), attributes, children);
export const svg = (tag, attributes = {}, ...children) =>
  build(document.createElementNS(SVG, tag), attributes, children);

/** Set the text of a node only when it differs: no needless layout. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** An empty state that says what is being waited for. */
export const empty = (title, text) => el("div", { class: "empty" }, el("p", {}, title), el("p", { class: "note" }, text));

/** Replace the options of a select, keeping the choice where it still exists. */
export function options(select, first, names) {
  const wanted = [first, ...names];
  const shown = [...select.options].map((option) => option.textContent);
  if (shown.length === wanted.length && shown.every((text, i) => text === wanted[i])) return;
  const chosen = select.value;
  select.replaceChildren(el("option", { value: "" }, first), ...names.map((name) => el("option", { value: name }, name)));
  select.value = names.includes(chosen) ? chosen : "";
}

/** A table from a header and rows, built when its <details> is open. */
export function table(header, rows) {
  return el(
    "table",
    {},
    el("thead", {}, el("tr", {}, header.map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell, i) => el(i ? "td" : "th", i ? {} : { scope: "row" }, cell))))),
  );
}

/** Fill a <details> table when it opens, and again whenever `refresh` is called while it is open. */
export function tableBehind(details, rows) {
  const box = details.querySelector(".table-box");
  const refresh = () => {
    if (details.open) box.replaceChildren(rows());
  };
  details.addEventListener("toggle", refresh);
  return refresh;
}
