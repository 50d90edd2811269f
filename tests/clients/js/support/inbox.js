// Waiting for things: an ordered record of what a source produced, and promises with a deadline.

/** How long a test waits for something that should come at once, in milliseconds. */
export const DEADLINE_MS = 5000;

/** Rejects when `promise` has not settled in time; `describe` is called only then, so it can show what did happen. */
export function within(promise, describe, deadline = DEADLINE_MS) {
  let timer;
  const expired = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${deadline} ms: ${describe()}`)), deadline);
  });
  return Promise.race([promise, expired]).finally(() => clearTimeout(timer));
}

/** Asks again until `probe` answers something truthy. For state that is visible only by asking, such as the HTTP API's. */
export async function eventually(probe, what, deadline = DEADLINE_MS) {
  const end = Date.now() + deadline;
  for (;;) {
    const answer = await probe();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`not within ${deadline} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/**
 * Everything a source has produced, in order.
 *
 * A read takes the first unread item that matches, whether it has already come or not, so a test never has to bind
 * a handler "early enough". `all` keeps everything, for assertions about what must not have come.
 */
export class Inbox {
  all = [];
  #unread = [];
  #readers = [];

  constructor(label) {
    this.label = label;
  }

  push(item) {
    this.all.push(item);
    const reader = this.#readers.findIndex(({ matches }) => matches(item));
    if (reader === -1) this.#unread.push(item);
    else this.#readers.splice(reader, 1)[0].resolve(item);
  }

  /** `match`: an event name, a predicate, or nothing for "whatever comes next". */
  next(match, { deadline } = {}) {
    const matches = matcher(match);
    const index = this.#unread.findIndex(matches);
    if (index !== -1) return Promise.resolve(this.#unread.splice(index, 1)[0]);
    let reader;
    const item = new Promise((resolve) => {
      reader = { matches, resolve };
      this.#readers.push(reader);
    });
    const describe = () => `${this.label}: ${match ?? 'anything'}; seen: ${JSON.stringify(this.all)}`;
    return within(item, describe, deadline).catch((error) => {
      this.#readers.splice(this.#readers.indexOf(reader), 1);
      throw error;
    });
  }

  /** All items that match, read or not. */
  seen(match) {
    return this.all.filter(matcher(match));
  }
}

function matcher(match) {
  if (match === undefined) return () => true;
  return typeof match === 'function' ? match : (item) => item.event === match;
}
