// Numbers and times as people read them. All times are UTC but for days, which are the shop's own.

const DASH = "–";
const HOUR_MS = 3_600_000;
const UTC = { timeZone: "UTC" };
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compactFormat = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const clockFormat = new Intl.DateTimeFormat("en-GB", {
  ...UTC, weekday: "short", day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit",
});
const timeFormat = new Intl.DateTimeFormat("en-GB", { ...UTC, weekday: "short", hour: "2-digit", minute: "2-digit" });
const dayFormat = new Intl.DateTimeFormat("en-GB", {
  ...UTC, day: "numeric", month: "short", hour: "2-digit", minute: "2-digit",
});

const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

export const count = (value) => (known(value) ? whole.format(value) : DASH);
export const compact = (value) => (known(value) ? (Math.abs(value) < 10_000 ? whole.format(value) : compactFormat.format(value)) : DASH);
export const percent = (value, digits = 0) => (known(value) ? `${(100 * value).toFixed(digits)} %` : DASH);
export const signedPercent = (value) => {
  if (!known(value)) return DASH;
  const rounded = Math.round(100 * value);
  return `${rounded > 0 ? "+" : rounded < 0 ? "−" : "±"}${Math.abs(rounded)} %`;
};
export const error = (value) => (known(value) ? value.toFixed(3) : DASH);

/** Units: whole ones when many, tenths when few. */
export const units = (value) => {
  if (!known(value)) return DASH;
  return Math.abs(value) >= 20 || Number.isInteger(value) ? whole.format(value) : value.toFixed(1);
};

export const rate = (value) => (known(value) ? (value >= 10 ? whole.format(value) : value.toFixed(1)) : DASH);
export const clock = (ms) => (known(ms) ? clockFormat.format(ms).replace(",", "") : DASH);
export const shortTime = (ms) => (known(ms) ? timeFormat.format(ms) : DASH);
export const dayTime = (ms) => (known(ms) ? dayFormat.format(ms) : DASH);

/** How far a zone's clocks are ahead of UTC at a time, in ms. */
export function zoneOffset(ms, timeZone) {
  const wall = new Intl.DateTimeFormat("en-CA", {
    timeZone, hourCycle: "h23", year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit",
  }).formatToParts(ms);
  const at = (type) => Number(wall.find((part) => part.type === type).value);
  return Date.UTC(at("year"), at("month") - 1, at("day"), at("hour"), at("minute"), at("second")) - Math.floor(ms / 1_000) * 1_000;
}

/** A day of the shop, by its own zone. */
export function localDay(ms, timeZone) {
  return known(ms) ? new Intl.DateTimeFormat("en-GB", { timeZone, weekday: "short", day: "numeric", month: "short" }).format(ms) : DASH;
}

export const isoTime = (ms) => (known(ms) ? new Date(ms).toISOString().slice(0, 16).replace("T", " ") : DASH);

/** A stretch of time in its largest two units. */
export function duration(ms) {
  if (!known(ms)) return DASH;
  const minutes = Math.max(0, Math.round(ms / 60_000));
  const days = Math.floor(minutes / 1_440);
  const hours = Math.floor((minutes % 1_440) / 60);
  if (days) return hours ? `${days} d ${hours} h` : `${days} d`;
  if (hours) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${minutes} min`;
}

export const ago = (ms, nowMs) => (known(ms) && known(nowMs) ? (nowMs - ms < 60_000 ? "just now" : `${duration(nowMs - ms)} ago`) : DASH);
/** An age in words. */
export const old = (ms) => (!known(ms) ? DASH : ms < 60_000 ? "just now" : `${duration(ms)} old`);
/** Seconds of wall time, in minutes where they are many. */
export const seconds = (s) => (s < 120 ? `${Math.round(s)} s` : duration(1_000 * s));
export const hoursOf = (ms) => ms / HOUR_MS;
/** How a forecast answers the drift of its segment. */
export function servedWith({ begins_at_ms: since, before }) {
  return before === "hidden" ? `with the days before ${shortTime(since)} hidden` : `with what sold before ${shortTime(since)} brought to what sells since`;
}

export const words = (name) => name.replaceAll("_", " ");

/** How fast the shop's clock runs, in words a person can check against a watch. */
export function speed(value) {
  if (!known(value) || value === 1) return "";
  if (value === 0) return "held";
  const perSecond = duration(1_000 * value);
  return value >= 60 ? `1 s = ${perSecond}` : `×${value}`;
}

/** Whom a version serves, where another one serves the others. */
export const forSome = (segments) => (segments.length ? ` for ${segments.slice(0, 3).join(", ")}${segments.length > 3 ? " and more" : ""}` : "");

/** A version as people say it; its whole name stands in the tooltip. */
export const version = (name) => /^v\d+(?=-)/.exec(name ?? "")?.[0] ?? ((name ?? "").startsWith("candidate-") ? "candidate" : name || DASH);

/** A pause in the unit that shows it. */
export const pause = (ms) => (ms < 0.1 ? `${(1_000 * ms).toFixed(1)} µs` : `${ms.toFixed(1)} ms`);
