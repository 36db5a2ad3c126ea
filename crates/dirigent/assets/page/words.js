// Numbers and times as people read them, in the words of `dirigent top`.

/** Digits in groups of three. */
export function whole(count) {
  return Math.round(count).toString().replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f");
}

function scaled(value, units, digits) {
  let at = 0;
  while (value >= 1000 && at < units.length - 1) {
    value /= 1000;
    at += 1;
  }
  return at === 0 ? `${digits(value)}${units[0]}` : `${value.toFixed(1)}${units[at]}`;
}

/** What of a service, a server or of all happens each second: nothing, as long as nobody has counted twice. */
export const ratesOf = ({ rates }) => rates ?? { connections: 0, in_packets: 0, in_bytes: 0, out_packets: 0, out_bytes: 0 };

/** Bytes both ways, each second. */
export function flowOf(one) {
  const rates = ratesOf(one);
  return rates.in_bytes + rates.out_bytes;
}

/** `12`, `3.4`, `123.4 k`: of what happens each second. */
export function rate(each) {
  const few = (value) => (value > 0 && value < 9.95 ? value.toFixed(1).replace(/\.0$/, "") : value.toFixed(0));
  return scaled(each, ["", " k", " M", " G"], few);
}

/** `1.5 kB`. */
export function bytes(count) {
  return scaled(count, [" B", " kB", " MB", " GB", " TB", " PB"], (value) => value.toFixed(0));
}

/** `1 server`, `2 servers`. */
export function count(number, thing) {
  return `${whole(number)} ${thing}${number === 1 ? "" : "s"}`;
}

/** `45 s`, `12 min`, `3 h 12 min`, `5 d 3 h`. */
export function span(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

const two = (n) => String(n).padStart(2, "0");

/** `14:03:59`, with the day if it is not today, in the browser's time. */
export function clock(date) {
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  const today = new Date().toDateString() === date.toDateString();
  return today ? time : `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${time}`;
}

/** What lists call a service, and the daemon too. */
export function nameOf(service) {
  if (service.fwmark === null || service.fwmark === undefined) return `${service.protocol} ${service.address}`;
  return `FWM  ${service.fwmark}${service.family === 6 ? " IPv6" : ""}`;
}

/** Whether questions can be asked about it: what was removed has no name any more. */
export function isNamed(service) {
  return service.address !== "removed";
}

/** A server's state: a word, a mark that is no colour, and whether it is well. */
export function stateOf(server) {
  const hop = server.next_hop.state;
  if (server.state === "down") return { word: "down", mark: "✕", kind: "bad", why: server.health?.why ?? "" };
  if (hop === "no neighbour" || hop === "no route") return { word: hop, mark: "✕", kind: "bad", why: "frames do not reach it" };
  if (server.state === "available") {
    const unknown = server.health?.state === "unknown";
    return { word: "available", mark: "●", kind: "good", why: unknown ? "not checked yet" : "" };
  }
  const mark = { starting: "◔", draining: "◐", quiesced: "○", overloaded: "▲", away: "○", removed: "✕" }[server.state] ?? "?";
  return { word: server.state, mark, kind: server.state === "overloaded" || server.state === "removed" ? "bad" : "wait", why: "" };
}
