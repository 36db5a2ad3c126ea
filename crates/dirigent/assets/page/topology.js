// The picture of what goes where: clients, virtual addresses, services and servers, and the traffic between them. On a narrow
// screen it is a tree. The table below it says the same.

import { el, table } from "./draw.js";
import { bytes, count, flowOf, isNamed, nameOf, rate, ratesOf, stateOf } from "./words.js";

/** What a picture has room for. */
const SERVICES = 8;
const SERVERS = 6;
/** Below this many pixels it is a tree. */
const NARROW = 640;
const ROW = 44;
const BOX = 36;
const LETTER = 7.3;

/** Pixels of an edge: one for nothing, ten for some gigabytes a second. */
const wide = (flow) => Math.min(10, 1 + Math.log10(1 + flow)).toFixed(1);

function shortened(text, width) {
  const most = Math.max(4, Math.floor(width / LETTER));
  if (text.length <= most) return text;
  const head = Math.ceil((most - 1) / 2);
  return `${text.slice(0, head)}…${text.slice(text.length - (most - 1 - head))}`;
}

/** What is drawn, as a tree: a part of everything. */
function tree(state) {
  const addresses = new Map();
  const services = state.stats.services.filter(isNamed);
  for (const service of services.slice(0, SERVICES)) {
    const address = service.fwmark === null ? service.address.replace(/:\d+$/, "") : "marked packets";
    if (!addresses.has(address)) addresses.set(address, { kind: "address", name: address, flow: 0, below: [] });
    const above = addresses.get(address);
    const servers = service.servers.slice(0, SERVERS).map((server) => ({
      kind: "server",
      name: server.address,
      state: stateOf(server),
      small: `${server.method}, ${rate(server.active)} active, ${bytes(flowOf(server))}/s`,
      flow: flowOf(server),
      below: [],
    }));
    if (service.servers.length > SERVERS) {
      servers.push({ kind: "more", name: `and ${count(service.servers.length - SERVERS, "more server")}`, flow: 0, below: [] });
    }
    const lost = service.quorum === false;
    above.flow += flowOf(service);
    above.below.push({
      kind: "service",
      name: nameOf(service),
      state: lost ? { mark: "▲", kind: "bad", word: "without quorum" } : null,
      small: `${rate(ratesOf(service).connections)} new/s, ${bytes(flowOf(service))}/s`,
      flow: flowOf(service),
      below: servers,
    });
  }
  const more = state.stats.matching - Math.min(SERVICES, services.length);
  return { top: { kind: "clients", name: "clients", flow: flowOf(state.stats), below: [...addresses.values()] }, more };
}

/** Places in columns: each node is in the middle of what is below it. */
function columns(top, width) {
  const widths = { clients: 84, address: 168, service: 206, server: 226, more: 226 };
  const gap = (width - 84 - 168 - 206 - 226) / 3;
  const at = { clients: 1, address: 84 + gap, service: 252 + 2 * gap, server: width - 227, more: width - 227 };
  let y = 22;
  const place = (node) => {
    node.x = at[node.kind];
    node.width = widths[node.kind];
    if (node.below.length === 0) {
      node.y = y;
      y += ROW;
    } else {
      node.below.forEach(place);
      node.y = (node.below[0].y + node.below.at(-1).y) / 2;
    }
    if (node.kind === "service") y += 8;
  };
  place(top);
  return { height: Math.max(y, ROW + 22), path: (from, to) => {
    const [x1, y1, x2, y2] = [from.x + from.width, from.y + BOX / 2, to.x, to.y + BOX / 2];
    const half = (x1 + x2) / 2;
    return `M${x1},${y1}C${half},${y1} ${half},${y2} ${x2},${y2}`;
  } };
}

/** Places one below the other. */
function indented(top, width) {
  let y = 2;
  const place = (node, depth) => {
    node.x = depth * 16 + 1;
    node.y = y;
    node.width = width - node.x - 1;
    y += ROW;
    for (const one of node.below) place(one, depth + 1);
  };
  place(top, 0);
  return { height: y, path: (from, to) => `M${from.x + 8},${from.y + BOX}V${to.y + BOX / 2}H${to.x}` };
}

function flat(node, above, all = []) {
  all.push({ node, above });
  for (const one of node.below) flat(one, node, all);
  return all;
}

function box({ node }) {
  const room = node.width - 16 - (node.state ? 16 : 0);
  const kind = node.state?.kind ?? "";
  const said = node.state && node.kind === "server" && node.state.word !== "available" ? `${node.state.word}, ` : "";
  const small = said + (node.small ?? "");
  return el(
    "g",
    { key: `${node.kind} ${node.y} ${node.name}` },
    el("rect", { class: `box ${node.kind} ${kind}`, x: node.x, y: node.y, width: node.width, height: BOX, rx: 4 }),
    el(
      "text",
      { class: "mono", x: node.x + 8, y: node.y + (small ? 15 : 22) },
      node.state && el("tspan", { class: kind }, `${node.state.mark} `),
      shortened(node.name, room),
      el("title", {}, [node.name, small].filter(Boolean).join(", ")),
    ),
    small && el("text", { class: "small", x: node.x + 8, y: node.y + 29 }, shortened(small, (node.width - 16) * 1.3)),
  );
}

/** The picture and its table, for so many pixels. */
export function topology(state, width) {
  if (!state.stats || !state.status) return [];
  const { top, more } = tree(state);
  const narrow = width < NARROW;
  const { height, path } = narrow ? indented(top, width) : columns(top, width);
  const all = flat(top, null);
  const edges = all.filter(({ above }) => above).map(({ node, above }) => {
    const kind = node.state?.kind === "bad" ? "cut" : node.flow > 0 ? "busy" : "idle";
    return el("path", { key: `to ${node.kind} ${node.y} ${node.name}`, class: `edge ${kind}`, d: path(above, node), "stroke-width": wide(node.flow) });
  });
  const addresses = all.filter(({ node }) => node.kind === "address").map(({ node }) => node);
  const frame = !narrow && addresses.length > 0 && [
    el("rect", { class: "frame", x: addresses[0].x - 10, y: 1, width: 188, height: height - 2, rx: 6 }),
    el("text", { class: "small", x: addresses[0].x, y: 15 }, `director ${state.status.instance}`),
  ];
  const busy = all.filter(({ node }) => node.kind === "server");
  const bad = busy.filter(({ node }) => node.state.kind === "bad").length;
  const title = `Clients reach ${count(addresses.length, "virtual address").replace("addresss", "addresses")} of the director, which sends them to ${count(busy.length, "server")}`;
  const desc = `${bad > 0 ? `${count(bad, "server")} of these cannot be used. ` : ""}The table below says the same, with the traffic of each.`;
  const rows = busy.length === 0 ? [] : state.stats.services.filter(isNamed).slice(0, SERVICES).flatMap((service) =>
    service.servers.slice(0, SERVERS).map((server) => {
      const { mark, word, kind } = stateOf(server);
      return el(
        "tr",
        { key: `${nameOf(service)} ${server.address}` },
        el("th", { scope: "row", class: "mono" }, nameOf(service)),
        el("td", { class: "mono" }, server.address),
        el("td", { class: kind }, mark, " ", word),
        el("td", {}, server.method),
        el("td", { class: "right" }, `${bytes(server.rates?.in_bytes ?? 0)}/s`),
        el("td", { class: "right" }, server.method === "nat" ? `${bytes(server.rates?.out_bytes ?? 0)}/s` : "directly"),
      );
    }),
  );
  const heads = [{ title: "Service" }, { title: "Server" }, { title: "State" }, { title: "Method" }, { title: "To it", right: true }, { title: "Answers", right: true }];
  return [
    el("h2", { id: "topology-title" }, "Topology"),
    el(
      "svg",
      { class: "map", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-labelledby": "map-title map-desc" },
      el("title", { id: "map-title" }, title),
      el("desc", { id: "map-desc" }, desc),
      frame,
      edges,
      all.map(box),
    ),
    more > 0 && el("p", { class: "dim" }, `and ${count(more, "more service")}: filter below, and the picture follows`),
    el("details", {}, el("summary", {}, "The same as a table"), table("What goes where", heads, rows)),
  ];
}
