// What is wrong: what the director sees by itself, and what an examination found.

import { el } from "./draw.js";
import { count } from "./words.js";

function problem({ place, what, remedy }, index) {
  return el("li", { key: `${place} ${index}` }, el("div", {}, el("span", { class: "wait" }, "▲ "), el("b", {}, place), place && ": ", what), remedy && el("div", { class: "dim" }, "→ ", remedy));
}

function finding(one, index) {
  const bad = one.severity === "error";
  return el(
    "li",
    { key: index },
    el("div", {}, el("span", { class: bad ? "bad" : "wait" }, bad ? "✕ error " : "▲ warning "), el("b", {}, one.place), ": ", one.what),
    one.evidence.map((line) => el("div", { class: "dim" }, line)),
    el("div", {}, one.rule),
    el("div", {}, "→ ", one.remedy),
    one.commands.map(({ host, command }) => el("div", {}, `on ${host}: `, el("code", {}, command))),
  );
}

function diagnosis({ findings, paths }) {
  const right = paths.filter((path) => path.right).length;
  return [
    el("p", {}, `${count(paths.length, "path")} tried, ${right} right; ${count(findings.length, "finding")}.`),
    findings.length > 0 && el("ul", { class: "problems" }, findings.map(finding)),
  ];
}

/** What is wrong, and the button that asks for more. */
export function findings(state, does) {
  const { status, me, examined } = state;
  if (!status) return [];
  const { problems } = status;
  const button = me?.operates
    ? el("button", { type: "button", id: "examine", disabled: examined === "now", onclick: does.examine }, examined === "now" ? "Examining…" : "Examine every path")
    : el("span", { class: "dim" }, "an operator’s ", el("code", {}, "dirigent doctor"), " examines every path");
  return [
    el("div", { class: "bar" }, el("h2", { id: "findings-title" }, "Findings"), button),
    problems.length === 0
      ? el("p", { id: "well" }, el("span", { class: "good" }, "● "), "Nothing is wrong that the director sees by itself.")
      : el("ul", { class: "problems", id: "problems" }, problems.slice(0, 50).map(problem)),
    problems.length > 50 && el("p", { class: "dim" }, `and ${count(problems.length - 50, "more")}`),
    el("div", { role: "status" }, examined?.failed && el("p", { class: "bad" }, "✕ ", examined.failed), examined?.findings && diagnosis(examined)),
  ];
}
