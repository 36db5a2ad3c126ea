// Makes the document what views describe. A view says all of a part each time; here only what differs is touched, so that
// focus, selection and a reader's place stay. Everything that comes from the daemon goes through text nodes and attributes.

const SVG = "http://www.w3.org/2000/svg";
const PICTURES = new Set(["svg", "g", "path", "rect", "line", "polyline", "circle", "text", "tspan", "title", "desc"]);

/** An element to be: its name, what it has, and what is in it. Nothing (null, false) is left out. */
export function el(name, has, ...inside) {
  return { name, has: has ?? {}, inside: inside.flat(Infinity).filter((one) => one !== null && one !== undefined && one !== false) };
}

/** Has an element contain just these. */
export function fill(node, ...inside) {
  patch(node, el("", {}, inside).inside, node.namespaceURI);
}

function patch(parent, wanted, space) {
  // By their key, if they have one; else by their order.
  const keyed = new Map();
  for (const child of parent.childNodes) {
    if (child.key !== undefined) keyed.set(child.key, child);
  }
  let at = parent.firstChild;
  for (const want of wanted) {
    const key = typeof want === "object" ? want.has.key : undefined;
    let node = at;
    if (key !== undefined) {
      node = keyed.get(key);
      keyed.delete(key);
    } else if (node && node.key !== undefined) {
      node = null;
    }
    if (!node || !same(node, want)) {
      node = make(want, space);
      parent.insertBefore(node, at);
    } else if (node === at) {
      at = at.nextSibling;
    } else {
      // It has moved up. What has the focus would lose it by a move, so others make way for it.
      while (at !== node && node.contains(document.activeElement)) {
        const next = at.nextSibling;
        parent.insertBefore(at, node.nextSibling);
        at = next;
      }
      if (at === node) at = node.nextSibling;
      else parent.insertBefore(node, at);
    }
    update(node, want, space);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function same(node, want) {
  if (typeof want !== "object") return node.nodeType === Node.TEXT_NODE;
  return node.nodeType === Node.ELEMENT_NODE && node.localName === want.name && node.key === want.has.key;
}

function make(want, space) {
  if (typeof want !== "object") return document.createTextNode("");
  const own = want.name === "svg" || (space === SVG && PICTURES.has(want.name)) ? SVG : "http://www.w3.org/1999/xhtml";
  const node = document.createElementNS(own, want.name);
  node.key = want.has.key;
  return node;
}

function update(node, want, space) {
  if (typeof want !== "object") {
    const text = String(want);
    if (node.data !== text) node.data = text;
    return;
  }
  for (const { name } of [...node.attributes]) {
    const value = want.has[name];
    // What the reader has unfolded stays so.
    if (name === "open") continue;
    if (value === undefined || value === null || value === false) node.removeAttribute(name);
  }
  for (const [name, value] of Object.entries(want.has)) {
    if (name === "key" || value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) {
      // One listener for each kind of event, which does what the last view says.
      node.does ??= {};
      if (!node.does[name]) node.addEventListener(name.slice(2), (event) => node.does[name]?.(event));
      node.does[name] = value;
      continue;
    }
    const text = value === true ? "" : String(value);
    if (node.getAttribute(name) !== text) node.setAttribute(name, text);
  }
  patch(node, want.inside, node.namespaceURI);
}

/** A table with headings; columns are `{ title, right }`, rows lists of cells, the first of which names the row. */
export function table(caption, columns, rows, has) {
  const head = columns.map(({ title, right }) => el("th", { scope: "col", class: right ? "right" : null }, title));
  return el(
    "div",
    // Whoever has no pointer scrolls it by keys.
    { class: "scroll", role: "region", "aria-label": caption, tabindex: "0" },
    el("table", has, el("caption", { class: "hidden" }, caption), el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows)),
  );
}
