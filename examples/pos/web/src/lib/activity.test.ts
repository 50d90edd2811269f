import { expect, test } from 'vitest';

import { EXPIRES_MS, parseActivity, type Seen, watchersOf, withActivity, withoutUser } from './activity';

const looks = (seen: readonly Seen[], user: string, tab: string, order: number | null, editing = false, at = 0) =>
  withActivity(seen, user, { tab, order, editing }, at);

test('a person with two windows on an order is one watcher, who edits if either does', () => {
  const seen = looks(looks(looks([], '1', 'a', 7), '1', 'b', 7, true), '2', 'c', 8);
  expect(watchersOf(seen, 7)).toEqual([{ user: '1', editing: true }]);
  expect(watchersOf(seen, 8)).toEqual([{ user: '2', editing: false }]);
});

test('closing the panel, or going offline, ends it', () => {
  const seen = looks(looks([], '1', 'a', 7), '2', 'b', 7);
  expect(watchersOf(looks(seen, '1', 'a', null), 7)).toEqual([{ user: '2', editing: false }]);
  expect(watchersOf(withoutUser(seen, '2'), 7)).toEqual([{ user: '1', editing: false }]);
});

test('a window that says nothing more is forgotten', () => {
  const seen = looks(looks([], '1', 'a', 7), '2', 'b', 8, false, EXPIRES_MS);
  expect(watchersOf(seen, 7)).toEqual([]);
});

test('what one person’s windows make this page keep is bounded', () => {
  let seen: Seen[] = [];
  for (let tab = 0; tab < 1000; tab++) seen = looks(seen, '1', String(tab), 7);
  expect(seen.length).toBeLessThanOrEqual(200);
});

test.each([
  null, 'text', {}, { tab: 'a', order: 7 }, { tab: 'a', order: '7', editing: false }, { tab: 'a', order: 1.5, editing: false },
  { tab: 'a'.repeat(41), order: 7, editing: false }, { tab: 7, order: 7, editing: false },
])('a whisper of another shape is not taken: %j', (data) => {
  expect(parseActivity(data)).toBeUndefined();
});
