// The way of a service's request and its answer, hop by hop, as `dirigent walk` draws it.

import { el, table } from "./draw.js";

const METHODS = { nat: "Masquerading (NAT)", dr: "Direct routing", tun: "Tunnelling" };

/** What the sender has changed is marked by a sign, not by colour alone. */
function place(text, changed) {
  return changed ? el("mark", {}, text, el("span", { "aria-hidden": "true" }, "*"), el("span", { class: "hidden" }, " (changed here)")) : text;
}

function isWithin(hop) {
  return hop.interface === "" && [hop.from, hop.to].every((party) => party === "director" || party === "server");
}

function hop(one, index) {
  const changes = (key) => one.changed.includes(key);
  const mac = ({ address, unknown }, key) =>
    isWithin(one) ? "" : el("div", { class: "dim mono" }, address ? place(address, changes(key)) : ["? ", el("span", { class: "hidden" }, `not known: ${unknown}`)]);
  const by = isWithin(one) ? "within the director" : one.interface === "" ? "" : `${one.from === "director" && one.to !== "director" ? "out of" : "into"} ${one.interface}`;
  const ends = ({ source, destination }, key) => [
    el("div", { class: "mono" }, place(source, key ? changes(key) : changes("source"))),
    el("div", { class: "mono" }, "→ ", place(destination, key ? changes(key) : changes("destination"))),
  ];
  return el(
    "tr",
    { key: index },
    el("th", { scope: "row" }, `${one.from} → ${one.to}`, by && el("div", { class: "dim" }, by)),
    el("td", {}, mac(one.source_mac, "source_mac"), mac(one.destination_mac, "destination_mac")),
    el(
      "td",
      {},
      one.outer && [el("div", {}, place(`${one.outer.kind}, TTL ${one.outer.ttl}, ${one.outer.bytes} bytes more, and inside:`, changes("outer"))), ends(one.outer, "outer")],
      ends(one),
    ),
    el("td", { class: "right" }, place(String(one.ttl), changes("ttl"))),
  );
}

const COLUMNS = [{ title: "Hop" }, { title: "MACs" }, { title: "Packet" }, { title: "TTL", right: true }];

function lines(title, all) {
  return all.length > 0 && [el("h4", {}, title), el("ul", {}, all.map((line) => el("li", {}, line)))];
}

function unknowns(way) {
  const all = [...way.request, ...way.answer].filter((one) => !isWithin(one)).flatMap((one) => [one.source_mac, one.destination_mac]);
  return [...new Set(all.filter(({ address }) => !address).map(({ unknown }) => `? is not known here: ${unknown}`))];
}

function way(one, index) {
  const tunnel = one.tunnel ? ` (${one.tunnel.kind.toUpperCase()})` : "";
  const method = one.local ? "The director itself is the server" : (METHODS[one.method] ?? one.method) + tunnel;
  return el(
    "article",
    { key: index, class: "way" },
    el("h3", {}, method),
    el("p", {}, "Client ", el("span", { class: "mono" }, one.client), " asks ", el("span", { class: "mono" }, one.asked), ", server ", el("span", { class: "mono" }, one.server), " answers."),
    el("h4", {}, "The request"),
    table("The request", COLUMNS, one.request.map(hop)),
    el("h4", {}, "The answer"),
    table("The answer", COLUMNS, one.answer.map(hop)),
    one.broken && el("p", { class: "bad" }, "✕ It does not arrive so: ", one.broken),
    el("p", { class: "dim" }, "* changed by who sends it"),
    lines("Why so", one.needs),
    lines("Who carries what", [one.traffic.text]),
    lines("Taken for granted", [...one.notes, ...unknowns(one)]),
  );
}

/** What is shown of a walk; `walk` is the answer, or why there is none. */
export function walk(state, does) {
  const { walk: answer, walkOf, walkFailed } = state;
  const title = el(
    "div",
    { class: "bar" },
    el("h2", { id: "walk-title", tabindex: "-1" }, "The walk of ", el("span", { class: "mono" }, walkOf)),
    el("button", { type: "button", onclick: does.walk }, "Again"),
    el("button", { type: "button", onclick: does.closeWalk }, "Close"),
  );
  if (walkFailed) return [title, el("p", { class: "bad" }, "✕ ", walkFailed)];
  if (!answer) return [title, el("p", { class: "dim" }, "asking the daemon")];
  return [title, answer.ways.map(way), answer.left_out.map((line) => el("p", { class: "dim" }, line))];
}
