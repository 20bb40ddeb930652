import assert from 'node:assert/strict';
import { test } from 'node:test';

import { create } from '@bufbuild/protobuf';

import { Cursor } from '../src/cursor.ts';
import { WatchResponseSchema } from '../src/gen/comity/v1/state_pb.ts';
import { EventType } from '../src/gen/comity/v1/types_pb.ts';

const put = (key: string) => ({ type: EventType.PUT, entry: { key } });
const message = (revision: bigint, ...commits: { revision: bigint; keys: string[]; partial?: boolean }[]) =>
  create(WatchResponseSchema, {
    revision,
    commits: commits.map(({ keys, partial = false, ...rest }) => ({ ...rest, partial, events: keys.map(put) })),
  });

function taken(cursor: Cursor): [string, bigint][] {
  const all: [string, bigint][] = [];
  for (let item = cursor.take(); item; item = cursor.take()) {
    all.push([item.type === 'resync' ? 'resync' : item.key, cursor.revision]);
  }
  return all;
}

test('a stream that breaks inside of a commit goes on inside of it', () => {
  const cursor = new Cursor(4n);
  cursor.receive(message(5n, { revision: 5n, keys: ['a'] }, { revision: 6n, keys: ['b', 'c'], partial: true }));
  assert.deepEqual(taken(cursor), [['a', 5n], ['b', 5n], ['c', 5n]]); // prettier-ignore
  cursor.begin();
  cursor.receive(message(5n, { revision: 6n, keys: ['b'], partial: true })); // cut differently
  assert.deepEqual(taken(cursor), []);
  cursor.receive(message(7n, { revision: 6n, keys: ['c', 'd'] }, { revision: 7n, keys: ['e'] }));
  assert.deepEqual(taken(cursor), [['d', 6n], ['e', 7n]]); // prettier-ignore
});

test('the bookmark follows the progress of a quiet stream, but not past what was not taken', () => {
  const cursor = new Cursor(0n);
  cursor.receive(message(3n));
  assert.equal(cursor.revision, 3n);
  cursor.receive(message(9n, { revision: 5n, keys: ['a', 'b'] }));
  assert.equal(cursor.revision, 3n);
  assert.deepEqual(taken(cursor), [['a', 4n], ['b', 9n]]); // prettier-ignore
  cursor.epoch = 'old';
  cursor.resync(2n, [], 'new');
  assert.equal(cursor.epoch, 'old');
  assert.deepEqual(taken(cursor), [['resync', 2n]]);
  assert.equal(cursor.epoch, 'new');
});
