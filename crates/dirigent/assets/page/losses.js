// What became of packets that did not get where they were sent, in the words of the documentation.

import { el, table } from "./draw.js";
import { rate, whole } from "./words.js";

/** Rows of docs/drops.md by their counter: what it means, and what to do. */
export function meanings(text) {
  const all = new Map();
  // Links and emphasis are for Markdown's readers.
  const plain = (cell) => cell.replace(/\[([^\]]*)\]\([^)]*\)/g, "$1").replaceAll("**", "").replaceAll("\\|", "|").trim();
  for (const line of text.split("\n")) {
    const cells = line.split(/ \| |^\| | \|$/).filter((cell) => cell !== "");
    const name = cells[0]?.match(/^`(\w+)`$/)?.[1];
    if (name && cells.length === 4) all.set(name, { means: plain(cells[2]), todo: plain(cells[3]) });
  }
  return all;
}

/** Text in which what stands between backquotes is code. */
function words(text) {
  return text.split("`").map((part, index) => (index % 2 === 1 ? el("code", {}, part) : part));
}

const COLUMNS = [{ title: "Reason" }, { title: "Packets", right: true }, { title: "Now", right: true }, { title: "What it means" }, { title: "What to do" }];

export const isLoss = ({ kind }) => kind === "dropped" || kind === "answered";

function row(reason, state) {
  const said = state.meanings.get(reason.name);
  const speed = state.speeds.get(reason.name) ?? 0;
  return el(
    "tr",
    { key: reason.name, "data-reason": reason.name },
    el("th", { scope: "row" }, el("code", {}, reason.name), el("div", { class: "dim" }, reason.kind)),
    el("td", { class: "right" }, whole(reason.count)),
    el("td", { class: speed > 0 && isLoss(reason) ? "right wait" : "right" }, speed > 0 && isLoss(reason) ? "▲ " : "", `${rate(speed)}/s`),
    el("td", {}, words(said?.means ?? reason.text)),
    el("td", {}, words(said?.todo ?? "")),
  );
}

/** Losses, the fastest first; and all other verdicts below. */
export function losses(state) {
  const { stats } = state;
  if (!stats) return [];
  const counted = stats.reasons.filter(({ count }) => count > 0);
  const speed = ({ name }) => state.speeds.get(name) ?? 0;
  const lost = counted.filter(isLoss).sort((a, b) => speed(b) - speed(a) || b.count - a.count);
  const others = counted.filter((reason) => !isLoss(reason));
  return [
    el("h2", { id: "losses-title" }, "Drops by reason"),
    lost.length === 0
      ? el("p", {}, el("span", { class: "good" }, "● "), "No packet was dropped, or answered with an error.")
      : table("Drops by reason", COLUMNS, lost.map((reason) => row(reason, state)), { class: "reasons" }),
    el("details", {}, el("summary", {}, `Forwarded and passed (${others.length} reasons)`), table("Forwarded and passed", COLUMNS, others.map((reason) => row(reason, state)), { class: "reasons" })),
  ];
}
