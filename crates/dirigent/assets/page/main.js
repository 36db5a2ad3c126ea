// Asks the daemon every two seconds, remembers a few minutes of it, and has every part of the page say what it says now.

import { Refused, ask, read } from "./ask.js";
import { fill, table } from "./draw.js";
import { findings } from "./findings.js";
import { head, routers, sums } from "./head.js";
import { history, sentence } from "./history.js";
import { isLoss, losses, meanings } from "./losses.js";
import { Series } from "./series.js";
import { service } from "./service.js";
import { PAGE, services } from "./services.js";
import { topology } from "./topology.js";
import { walk } from "./walk.js";
import { clock, flowOf, nameOf, ratesOf } from "./words.js";

/** Between two looks, ms; of a page that nobody sees; and between a key and the look that it asks for. */
const PERIOD = 2000;
const UNSEEN = 10_000;
const TYPING = 250;
/** The daemon is busy with this page for no more than a fifth of its time. */
const SHARE = 4;
/** Events that are asked for, and of which a screen reader is told at once. */
const EVENTS = 500;
const TOLD = 3;

const part = (id) => document.getElementById(id);

const state = {
  series: new Series(),
  speeds: new Map(),
  meanings: new Map(),
  lost: 0,
  losses: 0,
  filter: "",
  order: "listed",
  skip: 0,
  chosen: null,
  // Why the daemon does not answer, and since when; nothing: it does.
  gone: null,
  // The number of the last event that was told.
  heard: null,
};

let looks = 0;
let timer = 0;

/** Looks at once, and then again and again. */
async function look() {
  clearTimeout(timer);
  looks += 1;
  const mine = looks;
  const begun = performance.now();
  try {
    const of = { filter: state.filter, order: state.order, skip: state.skip, limit: PAGE };
    const questions = [ask("/v1/me"), ask("/v1/status"), ask("/v1/stats", of), ask("/v1/events/past", { limit: EVENTS }), chosen()];
    const [me, status, stats, past, detail] = await Promise.all(questions);
    // Somebody has asked for something else meanwhile.
    if (mine !== looks) return;
    Object.assign(state, { me, status, stats, past, detail });
    tell([state.gone && "The daemon answers again.", remember()].filter(Boolean).join(" "));
    state.gone = null;
    if (state.meanings.size === 0) state.meanings = meanings(await read("/page/drops.md"));
  } catch (error) {
    if (mine !== looks) return;
    state.gone ??= { since: new Date() };
    state.gone.why = error instanceof Refused ? error.message : "";
  }
  show();
  const took = performance.now() - begun;
  timer = setTimeout(look, Math.max(document.hidden ? UNSEEN : PERIOD, SHARE * took));
}

/** The service that is shown alone: it may be on another page of the list. */
async function chosen() {
  if (state.chosen === null) return null;
  try {
    const { services: found } = await ask("/v1/stats", { service: state.chosen });
    state.absent = null;
    return found[0];
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    state.absent = error.message;
    return null;
  }
}

/** Takes what was seen into what is remembered; says what has happened since the last look. */
function remember() {
  const { series, stats, status } = state;
  series.begin(performance.now());
  for (const key of ["connections", "in_bytes", "out_bytes"]) series.see(key, ratesOf(stats)[key]);
  series.see("used", status.connections.used);
  const seen = new Set(stats.services);
  if (state.detail && !stats.services.some((one) => nameOf(one) === state.chosen)) seen.add(state.detail);
  for (const one of seen) {
    const name = nameOf(one);
    series.see(`service ${name}`, flowOf(one));
    if (name !== state.chosen) continue;
    for (const server of one.servers) series.see(`server ${name} ${server.address}`, flowOf(server));
  }
  state.speeds = new Map(stats.reasons.map(({ name, count }) => [name, series.growth(`reason ${name}`, count)]));
  const lost = stats.reasons.filter(isLoss);
  state.losses = lost.reduce((all, { count }) => all + count, 0);
  state.lost = lost.reduce((all, { name }) => all + state.speeds.get(name), 0);
  series.see("lost", state.lost);

  const newest = state.past[0]?.number ?? 0;
  const heard = state.heard;
  state.heard = newest;
  if (heard === null || newest === heard) return "";
  // A new daemon counts anew.
  const before = newest > heard ? heard : 0;
  const news = state.past.filter(({ number }) => number > before);
  const more = news.length > TOLD ? `${news.length} events, the last of which: ` : "";
  return more + news.slice(0, TOLD).map(sentence).join(". ");
}

/** For those who do not see it. */
function tell(text) {
  if (text !== "") fill(part("news"), text);
}

const does = {
  close() {
    location.hash = "";
    part("services").focus();
  },
  all() {
    state.allServers = true;
    show();
  },
  more() {
    state.allEvents = true;
    show();
  },
  closeWalk() {
    state.walkOf = null;
    show();
    part("show-walk")?.focus();
  },
  async walk() {
    const mine = state.chosen;
    Object.assign(state, { walkOf: mine, walk: null, walkFailed: null });
    show();
    part("walk-title").focus();
    try {
      const answer = await ask("/v1/walk", { service: mine });
      if (state.walkOf === mine) state.walk = answer;
    } catch (error) {
      if (state.walkOf === mine) state.walkFailed = error.message;
    }
    show();
  },
  async examine() {
    state.examined = "now";
    show();
    try {
      state.examined = await ask("/v1/doctor", {}, "POST");
    } catch (error) {
      state.examined = { failed: error.message };
    }
    show();
  },
};

/** Says everything anew. */
function show() {
  const { gone, status } = state;
  document.title = `${gone ? "✕ " : ""}${status ? `${status.instance}, ` : ""}Dirigent`;
  document.body.classList.toggle("stale", gone !== null && status !== undefined);
  fill(part("head"), head(state));
  const without = "The daemon does not answer";
  const goes = "Forwarding goes on without it: programs and tables are in the kernel. This page asks again every two seconds; what it shows is from before.";
  fill(part("gone"), gone ? (gone.why ? `▲ ${gone.why}` : `▲ ${without} since ${clock(gone.since)}. ${goes}`) : null);
  fill(part("sums"), sums(state));
  fill(part("findings"), findings(state, does));
  // All parts are as wide as this one, which is always there.
  const box = part("services");
  const inner = getComputedStyle(box);
  fill(part("topology"), topology(state, Math.floor(box.clientWidth - parseFloat(inner.paddingLeft) - parseFloat(inner.paddingRight))));
  fill(part("list"), services(state, go));
  one("service", state.chosen !== null, () => service(state, does));
  one("walk", Boolean(state.walkOf), () => walk(state, does));
  one("routers", (status?.virtual_routers.length ?? 0) > 0, () => routers(status, table));
  fill(part("history"), history(state, does));
  fill(part("losses"), losses(state));
}

/** A part that is there at times. */
function one(id, is, view) {
  const node = part(id);
  node.hidden = !is;
  fill(node, is ? view() : null);
}

/** To another page of the list. */
function go(skip) {
  state.skip = skip;
  look();
}

/** To the service that the address names. */
function follow() {
  const name = location.hash.startsWith("#service=") ? decodeURIComponent(location.hash.slice("#service=".length)) : null;
  if (name === state.chosen) return;
  if (name === null && location.hash !== "") return;
  Object.assign(state, { chosen: name, detail: null, absent: null, allServers: false, walkOf: null, walk: null });
  show();
  if (name !== null) {
    part("service-title").focus();
    look();
  }
}

let typing = 0;
part("filter").addEventListener("input", (event) => {
  state.filter = event.target.value.trim();
  state.skip = 0;
  clearTimeout(typing);
  typing = setTimeout(look, TYPING);
});
part("order").addEventListener("change", (event) => {
  state.order = event.target.value;
  state.skip = 0;
  look();
});
part("choice").addEventListener("submit", (event) => {
  event.preventDefault();
  look();
});
window.addEventListener("hashchange", follow);
document.addEventListener("visibilitychange", () => document.hidden || look());
window.addEventListener("resize", show);
follow();
look();
