// What happened, the latest first.

import { el, table } from "./draw.js";
import { clock, count } from "./words.js";

/** Events that are shown unless more are asked for. */
const SHOWN = 20;

const COLUMNS = [{ title: "When" }, { title: "What" }, { title: "About" }, { title: "Why" }];

/** An event in words: what, about whom, why, and how it is marked. */
export function told(event) {
  const up = (is) => (is ? ["●", "good"] : ["✕", "bad"]);
  switch (event.event) {
    case "applied":
      return { what: `generation ${event.generation} applied`, about: event.by, why: `${event.what} (${count(event.operations, "operation")})`, mark: ["○", ""] };
    case "server":
      return { what: event.up ? "server can be reached" : "server cannot be reached", about: event.address, why: event.why, mark: up(event.up) };
    case "health":
      return { what: event.up ? "server is up" : "server is down", about: `${event.server} of ${event.service}`, why: event.why, mark: up(event.up) };
    case "quorum":
      return { what: event.up ? "quorum is there again" : "quorum is lost", about: event.service, why: "", mark: up(event.up) };
    case "role":
      return { what: `role: ${event.role}`, about: "this director", why: event.why, mark: ["○", ""] };
    case "alarm":
      return { what: "alarm", about: `virtual router ${event.router}`, why: event.what, mark: ["▲", "wait"] };
    case "suspected": {
      const cause = event.cause.replaceAll("_", " ");
      const about = event.server === "" ? event.service : `${event.server} of ${event.service}`;
      return { what: event.over ? `no longer suspected: ${cause}` : `suspected: ${cause}`, about, why: event.what, mark: event.over ? ["●", "good"] : ["▲", "wait"] };
    }
    default:
      return { what: event.event, about: "", why: "", mark: ["?", ""] };
  }
}

/** The same in a sentence. */
export function sentence(event) {
  const { what, about, why } = told(event);
  return [what, about && ` (${about})`, why && `: ${why}`].join("");
}

/** The table; `does.more` shows all that is remembered. */
export function history(state, does) {
  const { past } = state;
  if (!past) return [];
  const shown = state.allEvents ? past : past.slice(0, SHOWN);
  const rows = shown.map((event) => {
    const { what, about, why, mark } = told(event);
    return el(
      "tr",
      { key: event.number, "data-event": event.event },
      el("td", { class: "mono" }, el("time", { datetime: new Date(event.time_s * 1000).toISOString() }, clock(new Date(event.time_s * 1000)))),
      el("th", { scope: "row", class: mark[1] }, mark[0], " ", what),
      el("td", { class: "mono" }, about),
      el("td", {}, why),
    );
  });
  return [
    el("h2", { id: "history-title" }, "History"),
    past.length === 0 ? el("p", {}, "Nothing has happened since the daemon began.") : table("What happened", COLUMNS, rows, { class: "events" }),
    shown.length < past.length && el("p", {}, el("button", { type: "button", onclick: does.more }, `Show all ${count(past.length, "event")}`)),
  ];
}
