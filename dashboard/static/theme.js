// Sets the theme before the first paint, so that a chosen one does not flash the other.
"use strict";
(function () {
  let chosen = null;
  try {
    chosen = localStorage.getItem("freshet-theme");
  } catch (error) {
    chosen = null; // Storage may be forbidden; the system's choice stands then.
  }
  if (chosen === "light" || chosen === "dark") {
    document.documentElement.dataset.theme = chosen;
  }
})();
