// Records of the back end, kept equal to it. An event says which record changed, and only that one is asked for (what the
// event itself says is shown meanwhile); after a gap (a reconnect, a failed request) everything that changed since the last list is asked for. What has a higher revision
// is newer, so answers may come in any order, and hearing of a change twice does no harm.
//
// This file knows neither Echo nor React: hooks/useSynced.ts joins it to both.

export interface Versioned {
  id: number;
  revision: number;
}

/** A list, and the revision up to which it is complete. With `more`, ask for what comes after that revision. */
export interface Page<T> {
  records: T[];
  revision: number;
  more: boolean;
}

export interface Source<T> {
  /** What there is to show at first. */
  all(): Promise<Page<T>>;
  /** All records that changed after this revision. */
  after(revision: number): Promise<Page<T>>;
  /** One record; undefined if there is none. Without it, `after` is asked instead. */
  one?(id: number): Promise<T | undefined>;
}

/** Where a change was learnt of: the first list, this window's own request, an event, or a catch-up after a gap. */
export type Origin = 'load' | 'own' | 'event' | 'catch-up';

export interface Change<T> {
  record: T;
  before: T | undefined;
}

export interface State<T> {
  /** Each record as it was last asked for, with what events said of it since. */
  records: ReadonlyMap<number, T>;
  /** Whether the first list is here. */
  loaded: boolean;
  /** Why the last request failed, until one succeeds. */
  error: string | null;
}

/** With more events waiting than this, one request for all of them takes the place of one for each. */
const FEW = 4;

/** Seconds until a failed request is tried again; the last one repeats. */
const RETRY_AFTER = [0.5, 1, 2, 5];

/** Those of `records` that are newer than what `known` has. */
export function newer<T extends Versioned>(known: ReadonlyMap<number, T>, records: readonly T[]): Change<T>[] {
  return records
    .map((record) => ({ record, before: known.get(record.id) }))
    .filter(({ record, before }) => before === undefined || before.revision < record.revision);
}

export class Synced<T extends Versioned> {
  #state: State<T> = { records: new Map(), loaded: false, error: null };
  /** The records as the back end gave them. */
  #known: ReadonlyMap<number, T> = new Map();
  /** What an event said of a record beyond its revision: shown at once, until the record itself is here. */
  #said = new Map<number, Partial<T> & Versioned>();
  /** Everything up to this revision is known. Only lists move it: an event tells of one record, not of those before it. */
  #mark: number | undefined;
  /** Records that events told of and that were not asked for yet, with the revision they have at least. */
  #heard = new Map<number, number>();
  #behind = false;
  #running = false;
  #failures = 0;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #closed = false;
  readonly #source: Source<T>;
  readonly #listeners = new Set<() => void>();
  readonly #changeListeners = new Set<(changes: Change<T>[], origin: Origin) => void>();

  constructor(source: Source<T>) {
    this.#source = source;
  }

  /** The current state; another object after each change. */
  readonly state = (): State<T> => this.#state;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  /** Calls `listener` with each batch of changes. */
  onChanges(listener: (changes: Change<T>[], origin: Origin) => void): () => void {
    this.#changeListeners.add(listener);
    return () => this.#changeListeners.delete(listener);
  }

  /** Asks for the first list, or for what changed since the last one. To be called whenever events may have been missed. */
  catchUp(): void {
    this.#behind = true;
    this.#closed = false;
    void this.#run();
  }

  /** An event told of a change: the record is asked for, and what the event says of it is shown already. */
  hear(event: Partial<T> & Versioned): void {
    const { id, revision } = event;
    this.#heard.set(id, Math.max(revision, this.#heard.get(id) ?? 0));
    const known = this.#known.get(id);
    if (known !== undefined && Math.max(known.revision, this.#said.get(id)?.revision ?? 0) < revision) {
      this.#said.set(id, event);
      this.#set({ records: this.#shown() });
    }
    void this.#run();
  }

  /** The answer to this window's own change, which no event will tell it of. */
  apply(record: T): void {
    this.#take([record], 'own');
  }

  /** Asks for nothing any more, until the next `catchUp`. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#retry);
  }

  /** One request at a time, until nothing is left to ask for. */
  async #run(): Promise<void> {
    if (this.#running || this.#closed) return;
    this.#running = true;
    clearTimeout(this.#retry);
    try {
      while (!this.#closed && (await this.#step()));
      this.#failures = 0;
    } catch (error) {
      // Whatever was being asked for is in the catch-up, because a failure did not move the mark.
      this.#behind = true;
      this.#set({ error: error instanceof Error ? error.message : String(error) });
      const seconds = RETRY_AFTER[Math.min(this.#failures, RETRY_AFTER.length - 1)] ?? 5;
      this.#failures += 1;
      this.#retry = setTimeout(() => void this.#run(), seconds * 1000);
    } finally {
      this.#running = false;
    }
  }

  /** One request; false when there was nothing to ask for. */
  async #step(): Promise<boolean> {
    if (this.#mark === undefined) {
      this.#behind = false;
      const page = await this.#source.all();
      this.#mark = page.revision;
      this.#behind ||= page.more;
      this.#take(page.records, 'load', { loaded: true });
      return true;
    }
    if (this.#behind || this.#heard.size > FEW) {
      const origin = this.#behind ? 'catch-up' : 'event';
      this.#behind = false;
      this.#heard.clear();
      await this.#list(origin);
      return true;
    }
    for (const [id, revision] of this.#heard) {
      this.#heard.delete(id);
      if ((this.#known.get(id)?.revision ?? 0) >= revision) continue;
      if (this.#source.one === undefined) {
        await this.#list('event');
      } else {
        const record = await this.#source.one(id);
        this.#take(record === undefined ? [] : [record], 'event');
      }
      return true;
    }
    return false;
  }

  async #list(origin: Origin): Promise<void> {
    for (let more = true; more; ) {
      const mark = this.#mark ?? 0;
      const page = await this.#source.after(mark);
      if (page.revision < mark) {
        // Not the database this page began with. Begin again.
        this.#mark = undefined;
        this.#known = new Map();
        this.#said.clear();
        return;
      }
      this.#take(page.records, origin);
      this.#mark = page.revision;
      more = page.more && page.revision > mark;
    }
  }

  #take(records: readonly T[], origin: Origin, loaded?: { loaded: true }): void {
    const changes = newer(this.#known, records);
    if (changes.length > 0) {
      const known = new Map(this.#known);
      for (const { record } of changes) {
        known.set(record.id, record);
        if ((this.#said.get(record.id)?.revision ?? 0) <= record.revision) this.#said.delete(record.id);
      }
      this.#known = known;
      this.#set({ ...loaded, records: this.#shown(), error: null });
      for (const listener of this.#changeListeners) listener(changes, origin);
    } else if (loaded !== undefined || this.#state.error !== null) {
      this.#set({ ...loaded, error: null });
    }
  }

  #shown(): ReadonlyMap<number, T> {
    if (this.#said.size === 0) return this.#known;
    const shown = new Map(this.#known);
    for (const [id, said] of this.#said) {
      const record = shown.get(id);
      if (record !== undefined) shown.set(id, { ...record, ...said });
    }
    return shown;
  }

  #set(part: Partial<State<T>>): void {
    this.#state = { ...this.#state, ...part };
    for (const listener of this.#listeners) listener();
  }
}
