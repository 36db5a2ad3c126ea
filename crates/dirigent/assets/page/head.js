// Who this is, how it does, and the sums of everything.

import { el } from "./draw.js";
import { spark } from "./series.js";
import { bytes, count, rate, ratesOf, span, whole } from "./words.js";

/** The line at the top. */
export function head(state) {
  const { status, me, gone } = state;
  if (!status) return [el("h1", {}, "Dirigent"), el("p", { class: "facts" }, gone ? "" : "asking the daemon")];
  const { daemon } = status;
  const mode = gone
    ? el("span", { class: "pill wait" }, "▲ unknown: no answer")
    : el("span", { class: "pill good" }, "● forwarding");
  return [
    el("h1", {}, "Dirigent ", el("span", { class: "name" }, status.instance)),
    mode,
    el(
      "p",
      { class: "facts" },
      `version ${status.version}`,
      daemon && `, up ${span(daemon.uptime_s)}, configuration generation ${daemon.generation}`,
      daemon && daemon.drift.length > 0 && ` (${count(daemon.drift.length, "change")} at runtime)`,
      me && `; you are ${me.name}, and may ${me.operates ? "read and change" : "read"}`,
    ),
  ];
}

/** The sums, each with its line. */
export function sums(state) {
  const { stats, status, series } = state;
  if (!stats || !status) return [];
  const { total } = stats;
  const now = ratesOf(stats);
  const room = status.connections;
  const each = (value) => `${rate(value)}/s`;
  const flow = (value) => `${bytes(value)}/s`;
  const tile = (title, big, small, line) => el("div", { class: "tile" }, el("dt", {}, title), el("dd", {}, big), el("dd", { class: "small" }, small), el("dd", {}, line));
  const counter = (name, value, unit) => [el("span", { id: `sum-${name}` }, whole(value)), ` ${unit}`];
  const used = room.connections > 0 ? `${((100 * room.used) / room.connections).toFixed(1)} % of ${whole(room.connections)}` : "";
  return [
    el(
      "dl",
      { class: "tiles" },
      tile("New connections", el("b", {}, each(now.connections)), counter("connections", total.connections, "so far"), spark(series, "connections", "new connections", each)),
      tile("Connections", el("b", { id: "sum-used" }, whole(room.used)), used, spark(series, "used", "connections", whole)),
      tile("To servers", el("b", {}, flow(now.in_bytes)), counter("in_packets", total.in_packets, "packets"), spark(series, "in_bytes", "bytes to servers", flow)),
      tile("To clients", el("b", {}, flow(now.out_bytes)), counter("out_packets", total.out_packets, "packets"), spark(series, "out_bytes", "bytes to clients", flow)),
      tile("Lost", el("b", {}, each(state.lost)), counter("lost", state.losses, "packets"), spark(series, "lost", "packets lost", each)),
    ),
  ];
}

/** The virtual routers, if there are any. */
export function routers(status, table) {
  const columns = ["Router", "Role", "Since", "Priority", "Addresses", "On", "Other master"].map((title) => ({ title }));
  const marks = { master: ["●", "good"], backup: ["○", "wait"], fault: ["✕", "bad"], stopped: ["○", "wait"] };
  const rows = status.virtual_routers.map((router) => {
    const [mark, kind] = marks[router.state] ?? ["?", "wait"];
    const other = router.master ? `${router.master.address}, priority ${router.master.priority}` : "none heard";
    const trouble = router.contended ? "another master is heard" : router.claimed ? `another host claims ${router.claimed}` : "";
    return el(
      "tr",
      { key: router.name },
      el("th", { scope: "row" }, router.name, router.group && el("span", { class: "dim" }, ` in ${router.group}`)),
      el("td", {}, el("span", { class: kind }, mark, " ", router.state), el("div", { class: "dim" }, router.why), trouble && el("div", { class: "bad" }, "▲ ", trouble)),
      el("td", {}, span(router.for_s)),
      el("td", {}, router.priority === router.configured_priority ? whole(router.priority) : `${router.priority} of ${router.configured_priority}`),
      el("td", { class: "mono" }, router.addresses.join(", ")),
      el("td", {}, `${router.interface}, VRID ${router.vrid}, VRRP ${router.version}`),
      el("td", {}, other),
    );
  });
  return [el("h2", { id: "routers-title" }, "Virtual routers"), table("Virtual routers", columns, rows, { class: "routers" })];
}
