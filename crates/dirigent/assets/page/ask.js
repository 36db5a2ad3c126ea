// Questions to the daemon: to where this page comes from, and nowhere else.

/** How long an answer may take, ms. */
const PATIENCE = 20_000;

/** What the daemon says against a question. */
export class Refused extends Error {
  constructor(status, problems) {
    super(problems.map(({ place, what, remedy }) => [place && `${place}: `, what, remedy && `; ${remedy}`].join("")).join(". "));
    this.status = status;
  }
}

/** The answer to a question; parameters without a value are left out. */
export async function ask(path, parameters = {}, method = "GET") {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") query.set(name, value);
  }
  const text = query.toString();
  const signal = AbortSignal.timeout(PATIENCE);
  const answer = await fetch(text ? `${path}?${text}` : path, { method, signal, cache: "no-store", redirect: "error" });
  const body = await answer.json();
  if (!answer.ok) throw new Refused(answer.status, body.problems ?? [{ place: "", what: `status ${answer.status}`, remedy: "" }]);
  return body;
}

/** A file of the page. */
export async function read(path) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(PATIENCE) });
  return answer.ok ? answer.text() : "";
}
