// One service with its servers.

import { el, table } from "./draw.js";
import { spark } from "./series.js";
import { bytes, clock, count, nameOf, rate, ratesOf, span, stateOf, whole } from "./words.js";

/** Servers that are shown unless more are asked for. */
const SERVERS = 100;

const COLUMNS = [
  { title: "Server" },
  { title: "State" },
  { title: "Weight", right: true },
  { title: "Active", right: true },
  { title: "Inactive", right: true },
  { title: "So far", right: true },
  { title: "New/s", right: true },
  { title: "To it", right: true },
  { title: "From it", right: true },
  { title: "Traffic" },
  { title: "Reached by" },
];

/** The configured weight, and behind it the effective one where that says more than the state does. */
function weightOf({ weight, effective_weight: effective, state }) {
  if (effective === weight || ["removed", "down", "away"].includes(state)) return whole(weight);
  return `${whole(weight)} (${effective >= 100 ? whole(effective) : Number(effective.toFixed(2))})`;
}

function row(server, service, state) {
  const rates = ratesOf(server);
  const { word, mark, kind, why } = stateOf(server);
  const { health } = server;
  const since = health && health.since_s > 0 && `${health.state} since ${clock(new Date(health.since_s * 1000))} (${span(health.for_s)})`;
  const weight = weightOf(server);
  const tunnel = server.tunnel ? ` ${server.tunnel.kind}` : "";
  return el(
    "tr",
    { key: server.address, "data-server": server.address },
    el("th", { scope: "row", class: "mono" }, server.address),
    el("td", {}, el("span", { class: kind }, mark, " ", word), why && el("div", { class: "why" }, why), since && el("div", { class: "dim" }, since)),
    el("td", { class: "right" }, weight),
    el("td", { class: "right" }, whole(server.active)),
    el("td", { class: "right" }, whole(server.inactive)),
    el("td", { class: "right" }, whole(server.counters.connections)),
    el("td", { class: "right" }, rate(rates.connections)),
    el("td", { class: "right" }, `${bytes(rates.in_bytes)}/s`),
    el("td", { class: "right" }, server.method === "nat" ? `${bytes(rates.out_bytes)}/s` : "directly"),
    el("td", {}, spark(state.series, `server ${nameOf(service)} ${server.address}`, `traffic of ${server.address}`, (value) => `${bytes(value)}/s`)),
    el("td", {}, `${server.method}${tunnel}, ${server.next_hop.state}`, server.next_hop.mac && el("div", { class: "dim mono" }, server.next_hop.mac)),
  );
}

/** What is shown of the chosen service. */
export function service(state, does) {
  const { chosen, detail, absent } = state;
  const head = el(
    "div",
    { class: "bar" },
    el("h2", { id: "service-title", tabindex: "-1" }, chosen),
    el("button", { type: "button", id: "show-walk", onclick: does.walk }, "Walk: draw a request’s way"),
    el("button", { type: "button", id: "close", onclick: does.close }, "Close"),
  );
  if (absent) return [head, el("p", { class: "bad" }, "✕ ", absent)];
  if (!detail) return [head, el("p", { class: "dim" }, "asking the daemon")];
  const facts = [
    ["Scheduler", [detail.scheduler, ...detail.flags].join(", ")],
    detail.table_size !== null && ["Table", `${whole(detail.table_size)} slots`],
    detail.persistence && ["Persistence", `${detail.persistence.timeout_s} s, ${detail.persistence.mask}`],
    detail.quorum !== null && ["Quorum", detail.quorum ? "● has it" : "✕ lost"],
    ["Connections", whole(detail.counters.connections)],
    ["To servers", `${whole(detail.counters.in_packets)} packets, ${bytes(detail.counters.in_bytes)}`],
    ["To clients", `${whole(detail.counters.out_packets)} packets, ${bytes(detail.counters.out_bytes)}`],
    detail.allow.length > 0 && ["Only for", detail.allow.slice(0, 3).join(", ")],
    detail.deny.length > 0 && ["Not for", detail.deny.slice(0, 3).join(", ")],
  ].filter(Boolean);
  const shown = state.allServers ? detail.servers : detail.servers.slice(0, SERVERS);
  return [
    head,
    el("dl", { class: "facts" }, facts.map(([name, value]) => el("div", { key: name }, el("dt", {}, name), el("dd", {}, value)))),
    table(`Servers of ${chosen}`, COLUMNS, shown.map((server) => row(server, detail, state)), { class: "servers" }),
    shown.length < detail.servers.length && el("p", {}, el("button", { type: "button", onclick: does.all }, `Show all ${count(detail.servers.length, "server")}`)),
  ];
}
