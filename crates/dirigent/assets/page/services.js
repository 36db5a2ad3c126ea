// The services: as many as a page holds.

import { el, table } from "./draw.js";
import { spark } from "./series.js";
import { bytes, isNamed, nameOf, rate, ratesOf, stateOf, whole } from "./words.js";

/** Services on a page. */
export const PAGE = 50;

const COLUMNS = [
  { title: "Service" },
  { title: "Up", right: true },
  { title: "Active", right: true },
  { title: "Inactive", right: true },
  { title: "New/s", right: true },
  { title: "To servers", right: true },
  { title: "To clients", right: true },
  { title: "Traffic" },
  { title: "Scheduler" },
];

/** Where a service is shown. */
export const address = (name) => `#service=${encodeURIComponent(name)}`;

/** How many of its servers take connections, in a word and a mark. */
function health(service) {
  const up = service.servers.filter((server) => stateOf(server).kind === "good").length;
  const bad = service.servers.some((server) => stateOf(server).kind === "bad");
  const kind = service.quorum === false || (up === 0 && service.servers.length > 0) ? "bad" : bad ? "wait" : "good";
  const mark = { good: "●", wait: "▲", bad: "✕" }[kind];
  return el("td", { class: `right ${kind}` }, mark, ` ${up}/${service.servers.length}`, service.quorum === false && el("div", {}, "no quorum"));
}

function row(service, state) {
  const name = nameOf(service);
  const rates = ratesOf(service);
  const sum = (key) => service.servers.reduce((all, server) => all + server[key], 0);
  const chosen = state.chosen === name;
  const shown = isNamed(service) ? el("a", { href: address(name), "aria-current": chosen ? "true" : null }, name) : name;
  return el(
    "tr",
    { key: name, class: chosen ? "chosen" : null, "data-service": name },
    el("th", { scope: "row", class: "mono" }, shown),
    health(service),
    el("td", { class: "right" }, whole(sum("active"))),
    el("td", { class: "right" }, whole(sum("inactive"))),
    el("td", { class: "right" }, rate(rates.connections)),
    el("td", { class: "right" }, `${bytes(rates.in_bytes)}/s`),
    el("td", { class: "right" }, `${bytes(rates.out_bytes)}/s`),
    el("td", {}, spark(state.series, `service ${name}`, `traffic of ${name}`, (value) => `${bytes(value)}/s`)),
    el("td", {}, [service.scheduler, ...service.flags].join(", "), service.persistence && el("span", { class: "dim" }, " persistent")),
  );
}

/** The list, and what leads to the rest of it. */
export function services(state, go) {
  const { stats, skip } = state;
  if (!stats) return [];
  const { services: shown, matching } = stats;
  if (matching === 0) {
    return [el("p", { id: "found" }, state.filter ? `No service has “${state.filter}” in its name or servers.` : "There are no services.")];
  }
  const last = skip + shown.length;
  const pages = matching > PAGE && [
    el("button", { type: "button", disabled: skip === 0, onclick: () => go(Math.max(0, skip - PAGE)) }, "← before"),
    el("button", { type: "button", disabled: last >= matching, onclick: () => go(skip + PAGE) }, "after →"),
  ];
  return [
    table("Services", COLUMNS, shown.map((service) => row(service, state)), { class: "services" }),
    el("p", { class: "pages" }, el("span", { id: "found" }, `${whole(skip + 1)} to ${whole(last)} of ${whole(matching)}`), pages),
  ];
}
