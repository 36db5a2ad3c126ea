// What was, as far back as this page remembers: a few minutes of looks.

import { el } from "./draw.js";

/** Looks that are remembered: five minutes, if one comes every two seconds. */
const LOOKS = 150;

/** Values by name, each with when it was seen (ms). */
export class Series {
  constructor() {
    this.all = new Map();
    this.looks = 0;
    this.times = [];
  }
  /** When the oldest look was that is remembered. */
  get began() {
    return this.times[0] ?? this.now;
  }
  /** Begins a look. */
  begin(now) {
    this.now = now;
    this.looks += 1;
    this.times.push(now);
    if (this.times.length > LOOKS) this.times.shift();
    // What nobody has seen for as long as anything is remembered is gone.
    for (const [name, one] of this.all) {
      if (this.looks - one.seen > LOOKS) this.all.delete(name);
    }
  }
  /** What something is in this look. */
  see(name, value) {
    const one = this.all.get(name) ?? { points: [], seen: 0 };
    one.points.push({ at: this.now, value });
    if (one.points.length > LOOKS) one.points.shift();
    one.seen = this.looks;
    this.all.set(name, one);
  }
  /** How fast a counter grows each second, which is seen by this. What was zeroed begins anew. */
  growth(name, count) {
    const key = `count of ${name}`;
    const before = this.all.get(key)?.points.at(-1);
    this.see(key, count);
    this.all.get(key).points.splice(0, this.all.get(key).points.length - 1);
    if (!before || this.now <= before.at) return 0;
    const more = count >= before.value ? count - before.value : count;
    return (more * 1000) / (this.now - before.at);
  }
  points(name) {
    return this.all.get(name)?.points ?? [];
  }
}

/** A line is of no less than this, ms, and grows with what is known. */
const LEAST = 60_000;
const WIDTH = 96;
const HEIGHT = 22;

/** A line of what was; `words` says a value. */
export function spark(series, name, of, words) {
  const points = series.points(name);
  const values = points.map(({ value }) => value);
  const most = Math.max(...values, 0);
  const now = values.at(-1) ?? 0;
  const seconds = points.length > 1 ? Math.round((points.at(-1).at - points[0].at) / 1000) : 0;
  const said = `${of} over ${seconds} s: now ${words(now)}, at most ${words(most)}`;
  const x = (at) => WIDTH - ((series.now - at) / Math.max(LEAST, series.now - series.began)) * WIDTH;
  const y = (value) => HEIGHT - 1.5 - (most > 0 ? value / most : 0) * (HEIGHT - 4);
  const line = points.map(({ at, value }) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`);
  const first = line[0]?.split(",")[0] ?? WIDTH;
  return el(
    "svg",
    { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, width: WIDTH, height: HEIGHT, role: "img", "aria-label": said },
    el("title", {}, said),
    el("line", { class: "floor", x1: 0, y1: HEIGHT - 1, x2: WIDTH, y2: HEIGHT - 1 }),
    line.length > 1 && el("path", { class: "under", d: `M${first},${HEIGHT - 1}L${line.join("L")}V${HEIGHT - 1}Z` }),
    line.length > 1 && el("polyline", { points: line.join(" ") }),
  );
}
