import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Compacted, InvalidArgument } from '../src/index.ts';
import type { Event, Resync } from '../src/index.ts';
import { client, next } from './servers.ts';

const said = (event: Event | Resync) =>
  event.type === 'resync'
    ? [event.type, event.revision, event.entries.map(({ key, value }) => [key, value])]
    : [event.type, event.revision, event.key, event.type === 'put' ? event.entry.value : event.cause];

test('events come in order, with those of one transaction under one revision', async () => {
  using state = client();
  const watch = state.watch({ prefix: 'a/', previous: true });
  assert.equal(await watch.ready(), 0n);
  await state.put('b', 0);
  await state.transact({ then: [{ put: 'a/1', value: 1 }, { put: 'a/2', value: 2 }] }); // prettier-ignore
  await state.delete('a/1', { message: 'done' });
  const events = [];
  for await (const event of watch) {
    events.push(event);
    if (events.length === 2) assert.equal(watch.revision, 2n);
    if (events.length === 3) break;
  }
  assert.deepEqual(events.map(said), [
    ['put', 2n, 'a/1', 1],
    ['put', 2n, 'a/2', 2],
    ['delete', 3n, 'a/1', 'client'],
  ]);
  const last = events[2];
  assert(last?.type === 'delete' && last.previous?.value === 1 && last.author === 'node' && last.message === 'done');
  assert.deepEqual(await watch.next(), { done: true, value: undefined }); // `break` has ended it
});

test('a commit that is too large for one message is handed out whole before the bookmark passes it', async () => {
  using state = client();
  const watch = state.watch({ prefix: '' });
  await watch.ready();
  const then = Array.from({ length: 1_000 }, (_, place) => ({ put: `key/${place}`, value: 'x'.repeat(3_500) }));
  await state.transact({ then });
  const keys = new Set<string>();
  while (keys.size < 1_000) {
    assert.equal(watch.revision, 0n);
    const event = await next(watch);
    if (event.type === 'put') keys.add(event.key);
  }
  assert.equal(watch.revision, 1n);
  await watch.return();
  const [commit, ...others] = await state.history().all();
  assert.deepEqual([commit?.events.length, others], [1_000, []]);
});

test('from a revision, of one key, of one type', async () => {
  using state = client();
  for (const value of [1, 2, 3]) await state.put('key', value);
  await state.delete('key');
  await state.put('other', 1);
  await using watch = state.watch({ key: 'key', from: 2n });
  assert.deepEqual(
    [said(await next(watch)), said(await next(watch)), said(await next(watch))],
    [
      ['put', 2n, 'key', 2],
      ['put', 3n, 'key', 3],
      ['delete', 4n, 'key', 'client'],
    ],
  );
  await using deletes = state.watch({ key: 'key', from: 1, only: 'delete' });
  assert.deepEqual(said(await next(deletes)), ['delete', 4n, 'key', 'client']);
});

test('from the present state on', async () => {
  using state = client();
  await state.put('a/1', 1);
  await using watch = state.watch({ prefix: 'a/', initial: true });
  assert.deepEqual(said(await next(watch)), ['resync', 1n, [['a/1', 1]]]);
  await state.put('a/2', 2);
  assert.deepEqual(said(await next(watch)), ['put', 2n, 'a/2', 2]);
  using empty = client();
  await using nothing = empty.watch({ key: 'key', initial: true });
  assert.deepEqual(said(await next(nothing)), ['resync', 0n, []]);
});

test('where the history is gone it begins anew with the present state', async () => {
  using state = client();
  for (const value of [1, 2, 3]) await state.put('key', value);
  await state.compact();
  await using watch = state.watch({ prefix: '', from: 1 });
  assert.deepEqual(said(await next(watch)), ['resync', 3n, [['key', 3]]]);
  await state.put('key', 4);
  assert.deepEqual(said(await next(watch)), ['put', 4n, 'key', 4]);
  await state.deleteNamespace(); // under a stream that is open
  const resync = await next(watch);
  assert(resync.type === 'resync' && resync.entries.length === 0);
  const { revision } = await state.put('key', 5);
  assert.deepEqual(said(await next(watch)), ['put', revision, 'key', 5]);
  await state.compact();
  await assert.rejects(state.watch({ prefix: '', from: 1, resync: false }).next(), Compacted);
});

test('what was missed is told and never passed over, also where the new state has gone beyond the old one', async () => {
  using state = client();
  await state.put('key', 1);
  await using strict = state.watch({ prefix: '', resync: false });
  await using lenient = state.watch({ prefix: '' });
  assert.deepEqual([await strict.ready(), await lenient.ready()], [1n, 1n]);
  await state.deleteNamespace(); // as where a server that keeps its state in memory starts again
  for (const value of [2, 3, 4]) await state.put('key', value);
  await assert.rejects(strict.next(), Compacted);
  const values = [];
  for await (const event of lenient) {
    if (event.type === 'resync') values.length = 0;
    for (const entry of event.type === 'resync' ? event.entries : event.type === 'put' ? [event.entry] : []) {
      values.push(entry.value);
    }
    if (values.at(-1) === 4) break;
  }
  assert.deepEqual(values, [2, 3, 4].slice(-values.length));
});

test('a bookmark of another history is one of a history that is gone', async () => {
  using state = client();
  const listing = state.list();
  assert.throws(() => listing.epoch, /is known once the first page was read/);
  await listing.all();
  const { revision, epoch } = await state.transact({ then: [{ put: 'key', value: 1 }] });
  assert.deepEqual([revision, epoch], [1n, listing.epoch]);
  assert.equal((await state.describe()).epoch, epoch);
  const from = listing.revision + 1n;
  await using same = state.watch({ prefix: '', from, epoch });
  assert.deepEqual(said(await next(same)), ['put', 1n, 'key', 1]);
  assert.deepEqual([same.revision, same.epoch], [1n, epoch]);
  await using other = state.watch({ prefix: '', from, epoch: 'other' });
  assert.deepEqual([other.revision, other.epoch], [0n, 'other']);
  assert.deepEqual(said(await next(other)), ['resync', 1n, [['key', 1]]]);
  assert.deepEqual([other.revision, other.epoch], [1n, epoch]);
  await state.put('key', 2);
  assert.deepEqual(said(await next(other)), ['put', 2n, 'key', 2]);
  const strict = state.watch({ prefix: '', from, epoch: 'other', resync: false });
  await assert.rejects(strict.next(), { reason: 'EPOCH_CHANGED' });
  assert.throws(() => state.watch({ prefix: '', epoch }), TypeError);
});

test('a loop over pages that is left asks for no more of them', async () => {
  using state = client();
  await state.transact({ then: Array.from({ length: 30 }, (_, place) => ({ put: `key/${place}`, value: place })) });
  const found = state.list('key/', { pageSize: 10 });
  assert.throws(() => found.revision, /is known once the first page was read/);
  for await (const { key } of found) {
    assert(key);
    break;
  }
  assert.equal(found.revision, 1n);
  assert.equal((await found.all()).length, 30); // each reads anew
});

test('a signal ends it, and so does return, also for who waits', async () => {
  using state = client();
  const stop = new AbortController();
  const watch = state.watch({ prefix: '', signal: stop.signal });
  await watch.ready();
  const waiting = watch.next();
  stop.abort();
  assert.deepEqual(await waiting, { done: true, value: undefined });
  assert.deepEqual(await state.watch({ prefix: '', signal: stop.signal }).next(), { done: true, value: undefined });
  const other = state.watch({ prefix: '' });
  const first = other.next();
  await other.return();
  assert.deepEqual(await first, { done: true, value: undefined });
});

test('what a new stream cannot heal is thrown', async () => {
  using state = client();
  await assert.rejects(state.watch({ key: '' }).next(), InvalidArgument);
  await assert.rejects(state.watch({ prefix: '', from: 100 }).next(), { reason: 'REVISION_IN_FUTURE' });
  assert.throws(() => state.watch({}), TypeError);
  assert.throws(() => state.watch({ key: 'a', prefix: 'b' }), TypeError);
  assert.throws(() => state.watch({ key: 'a', initial: true, from: 1 }), TypeError);
  assert.throws(() => state.watch({ key: 'a', from: -1 }), RangeError);
  assert.throws(() => state.watch({ key: 'a', progressMs: 1 }), RangeError);
  using none = client({ address: '127.0.0.1:1', timeoutMs: 100 });
  await assert.rejects(none.watch({ key: 'a' }).next(), { reason: 'UNREACHABLE' });
});
