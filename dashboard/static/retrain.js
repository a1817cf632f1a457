// The form by which a visitor who knows the token asks for training.

import { byId, say } from "./dom.js";

const ANSWERS = {
  202: "Asked for. What learn answers appears below.",
  401: "The token is missing.",
  409: "Another request has no answer yet; it comes first.",
};

/** Show or hide that one may ask, as the server says. */
export function offerRetrain(offered) {
  byId("retrain-open").hidden = !offered;
  if (!offered) byId("retrain").hidden = true;
}

async function askForTraining() {
  const segment = byId("retrain-segment").value;
  const response = await fetch("/api/retrain", {
    method: "POST",
    headers: { authorization: `Bearer ${byId("retrain-token").value}`, "content-type": "application/json" },
    body: JSON.stringify({ segments: segment ? [segment] : [] }),
  });
  const told = await response.json().catch(() => ({}));
  return ANSWERS[response.status] ?? told.error ?? `The server answered ${response.status}.`;
}

byId("retrain-open").addEventListener("click", () => {
  byId("retrain").hidden = !byId("retrain").hidden;
  if (!byId("retrain").hidden) byId("retrain-token").focus();
});
byId("retrain").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = event.target.querySelector("button");
  button.disabled = true;
  say(byId("retrain-answer"), "");
  try {
    say(byId("retrain-answer"), await askForTraining());
  } catch {
    say(byId("retrain-answer"), "The page's server does not answer; nothing is known to be asked for.");
  } finally {
    button.disabled = false;
  }
});
