// Lengths of steps: their names, how much history is shown of each, and how far ahead past forecasts were.

export const MINUTE_MS = 60_000;
export const HOUR_MS = 3_600_000;
export const DAY_MS = 86_400_000;

const KNOWN = {
  [MINUTE_MS]: {
    name: "minute", plural: "Minutes", each: "by the minute",
    spans: [[30, "30 min"], [60, "1 h"], [180, "3 h"]],
    leads: [["step", "1 min ahead", "forecast a minute before"], ["hour", "1 h ahead", "forecast an hour before"]],
  },
  [HOUR_MS]: {
    name: "hour", plural: "Hours", each: "by the hour",
    spans: [[24, "1 d"], [72, "3 d"], [168, "7 d"]],
    leads: [["step", "1 h ahead", "forecast an hour before"], ["day", "1 day ahead", "forecast a day before"]],
  },
  [DAY_MS]: {
    name: "day", plural: "Days", each: "by the day",
    spans: [[28, "4 w"], [56, "8 w"], [182, "26 w"]],
    leads: [["step", "1 day ahead", "forecast a day before"], ["week", "1 week ahead", "forecast a week before"]],
  },
};

const length = (ms) => (ms % MINUTE_MS ? `${ms / 1_000} s` : ms % HOUR_MS ? `${ms / MINUTE_MS} min` : `${ms / HOUR_MS} h`);

/** All that is said of steps of one length. */
export function widthOf(ms) {
  if (KNOWN[ms]) return KNOWN[ms];
  const far = ms < HOUR_MS ? "hour" : ms < DAY_MS ? "day" : "week";
  return {
    name: String(ms), plural: length(ms), each: `by ${length(ms)}`,
    spans: [24, 72, 168].map((steps) => [steps, `${steps} steps`]),
    leads: [["step", "1 step ahead", "forecast a step before"], [far, `1 ${far} ahead`, `forecast ${far === "hour" ? "an" : "a"} ${far} before`]],
  };
}

/** The length that an address names; null for none. */
export function widthNamed(name) {
  const known = Object.keys(KNOWN).find((ms) => KNOWN[ms].name === name);
  return known ? Number(known) : /^\d{1,12}$/.test(name) ? Number(name) : null;
}
