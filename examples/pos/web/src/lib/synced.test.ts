import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { type Change, type Origin, type Page, type Source, Synced, type Versioned } from './synced';

interface Row extends Versioned {
  text: string;
}

/** A back end in memory: one revision counts every change, as the real one's does. */
class BackEnd implements Source<Row> {
  rows = new Map<number, Row>();
  revision = 0;
  asked: string[] = [];
  pageSize = 100;
  down = false;
  /** Called while a request is under way, before its answer is made. */
  meanwhile: (() => void) | undefined;

  put(id: number, text: string): Row {
    const row = { id, text, revision: ++this.revision };
    this.rows.set(id, row);
    return row;
  }

  async #answer<T>(asked: string, make: () => T): Promise<T> {
    this.asked.push(asked);
    await Promise.resolve();
    const meanwhile = this.meanwhile;
    this.meanwhile = undefined;
    if (this.down) throw new Error('down');
    const answer = make();
    meanwhile?.();
    return answer;
  }

  all = () => this.#answer('all', (): Page<Row> => ({ records: [...this.rows.values()], revision: this.revision, more: false }));
  after = (revision: number) =>
    this.#answer(`after ${revision}`, (): Page<Row> => {
      const changed = [...this.rows.values()].filter((row) => row.revision > revision).sort((a, b) => a.revision - b.revision);
      const records = changed.slice(0, this.pageSize);
      const more = records.length < changed.length;
      return { records, revision: more ? (records.at(-1)?.revision ?? revision) : this.revision, more };
    });
  one = (id: number) => this.#answer(`one ${id}`, () => this.rows.get(id));
}

let backEnd: BackEnd;
let store: Synced<Row>;
let changes: [Origin, Change<Row>[]][];

const settle = () => vi.advanceTimersByTimeAsync(0);
const texts = () => Object.fromEntries([...store.state().records].map(([id, { text }]) => [id, text]));

beforeEach(async () => {
  vi.useFakeTimers();
  backEnd = new BackEnd();
  backEnd.put(1, 'a');
  backEnd.put(2, 'b');
  store = new Synced<Row>(backEnd);
  changes = [];
  store.onChanges((batch, origin) => changes.push([origin, batch]));
  store.catchUp();
  await settle();
  backEnd.asked = [];
});

afterEach(() => {
  store.close();
  vi.useRealTimers();
});

test('an event asks for the one record it is about', async () => {
  store.hear(backEnd.put(2, 'changed'));
  await settle();
  expect(backEnd.asked).toEqual(['one 2']);
  expect(texts()).toEqual({ 1: 'a', 2: 'changed' });
});

test('what an event says is shown at once, and the record when it is here', async () => {
  const { id, revision } = backEnd.put(2, 'changed, with more to it');
  store.hear({ id, revision, text: 'changed' });
  expect(texts()[2]).toBe('changed');
  expect(changes.map(([origin]) => origin)).toEqual(['load']);
  await settle();
  expect(texts()[2]).toBe('changed, with more to it');
  expect(changes.at(-1)?.[1][0]?.before?.text).toBe('b');
});

test('an old event says nothing, nor one of a record that is not here', async () => {
  store.apply(backEnd.put(2, 'newest'));
  store.hear({ id: 2, revision: 1, text: 'old' });
  store.hear({ id: 99, revision: 50, text: 'unknown' });
  expect(texts()).toEqual({ 1: 'a', 2: 'newest' });
  await settle();
  expect(texts()).toEqual({ 1: 'a', 2: 'newest' });
});

test('an event that is heard twice, or of what is known already, asks once or not at all', async () => {
  const row = backEnd.put(2, 'changed');
  store.hear(row);
  store.hear(row);
  await settle();
  store.hear(row);
  store.hear({ id: 1, revision: 1 });
  await settle();
  expect(backEnd.asked).toEqual(['one 2']);
});

test('many events at once become one request', async () => {
  for (let id = 10; id < 30; id++) store.hear(backEnd.put(id, 'new'));
  await settle();
  expect(backEnd.asked).toEqual(['one 10', 'after 2']);
  expect(store.state().records.size).toBe(22);
});

test('an answer that comes late does not take back a newer one', async () => {
  const newest = backEnd.put(1, 'newest');
  store.apply(newest);
  store.apply({ id: 1, revision: 1, text: 'old' });
  expect(texts()[1]).toBe('newest');
  expect(changes.at(-1)).toEqual(['own', [{ record: newest, before: { id: 1, text: 'a', revision: 1 } }]]);
});

test('after a gap everything that changed is asked for, from the last list on', async () => {
  store.hear(backEnd.put(3, 'heard'));
  await settle();
  backEnd.put(1, 'missed');
  backEnd.put(4, 'missed too');
  backEnd.asked = [];
  store.catchUp();
  await settle();
  // From 2, not from 3: that one event arrived does not say that those before it did.
  expect(backEnd.asked).toEqual(['after 2']);
  expect(texts()).toEqual({ 1: 'missed', 2: 'b', 3: 'heard', 4: 'missed too' });
  // What was known already is no news.
  expect(changes.at(-1)?.[1].map(({ record }) => record.id)).toEqual([1, 4]);
  backEnd.asked = [];
  store.catchUp();
  await settle();
  expect(backEnd.asked).toEqual(['after 5']);
});

test('a long gap comes in pages', async () => {
  backEnd.pageSize = 3;
  for (let id = 10; id < 18; id++) backEnd.put(id, 'missed');
  store.catchUp();
  await settle();
  expect(backEnd.asked).toEqual(['after 2', 'after 5', 'after 8']);
  expect(store.state().records.size).toBe(10);
});

test('a reconnect during the first list is caught up with after it', async () => {
  const fresh = new Synced<Row>(backEnd);
  backEnd.meanwhile = () => {
    backEnd.put(9, 'between list and subscription');
    fresh.catchUp();
  };
  fresh.catchUp();
  await settle();
  expect(fresh.state().records.get(9)?.text).toBe('between list and subscription');
});

test('an event during a request for the same record is not lost', async () => {
  backEnd.meanwhile = () => store.hear(backEnd.put(2, 'second'));
  store.hear(backEnd.put(2, 'first'));
  await settle();
  expect(texts()[2]).toBe('second');
});

test('a failed request is tried again and loses nothing', async () => {
  backEnd.down = true;
  const { id, revision } = backEnd.put(2, 'changed');
  store.hear({ id, revision });
  await settle();
  expect(store.state().error).toBe('down');
  expect(texts()[2]).toBe('b');
  backEnd.put(3, 'meanwhile');
  backEnd.down = false;
  await vi.advanceTimersByTimeAsync(600);
  expect(store.state().error).toBeNull();
  expect(texts()).toEqual({ 1: 'a', 2: 'changed', 3: 'meanwhile' });
});

test('a back end that began anew is read anew', async () => {
  backEnd.rows.clear();
  backEnd.revision = 0;
  backEnd.put(7, 'another database');
  store.catchUp();
  await settle();
  expect(texts()).toEqual({ 7: 'another database' });
});

test('a record that is gone by the time it is asked for does no harm', async () => {
  store.hear({ id: 99, revision: 50 });
  await settle();
  expect(backEnd.asked).toEqual(['one 99']);
  expect(store.state().error).toBeNull();
});

test('a closed store asks for nothing', async () => {
  store.close();
  store.hear(backEnd.put(2, 'changed'));
  await settle();
  expect(backEnd.asked).toEqual([]);
  store.catchUp();
  await settle();
  expect(texts()[2]).toBe('changed');
});
