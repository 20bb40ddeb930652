/** What a client does where the way to its server is lost, or nobody answers at its end. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { queryObjects } from 'node:v8';

import { LeaseLost, Unavailable } from '../src/index.ts';
import type { Client } from '../src/index.ts';
import { Way } from './scripted.ts';
import { client, next } from './servers.ts';

const ADDRESS = process.env['COMITY_ADDRESS'] || '127.0.0.1:7171';
const NOBODY = '127.0.0.1:1';

test('of two addresses one that is dead costs nothing, and one that is silent a part of one timeout', async () => {
  using way = await Way.open(ADDRESS);
  way.lost = true;
  for (const first of [NOBODY, way.address]) {
    using state = client({ address: `${first},${ADDRESS}`, timeoutMs: 30_000 });
    await using watch = state.watch({ prefix: '' });
    await Promise.all([watch.ready(), ...Array.from({ length: 20 }, (_, place) => state.put(`key/${place}`, place))]);
    assert.equal((await state.list().all()).length, 20);
    await state.put('last', 1);
    assert.equal((await next(watch)).type, 'put');
    await state.compact();
  }
});

test('a connection that is lost without a word costs one call its timeout, and a watch no event', async () => {
  using way = await Way.open(ADDRESS);
  using state = client({ address: `${way.address},${ADDRESS}` });
  await using watch = state.watch({ prefix: '', progressMs: 100 });
  await watch.ready();
  await state.put('key', 1);
  assert.equal((await next(watch)).type, 'put');
  way.lost = true;
  const lost = state.get('key', { timeoutMs: 300 });
  await assert.rejects(lost, { code: 'DEADLINE_EXCEEDED' });
  await state.put('key', 2);
  const event = await next(watch);
  assert(event.type === 'put' && event.entry.value === 2);
  assert.equal((await state.get('key'))?.version, 2n);
});

test('a lease lives on over another connection', async () => {
  using way = await Way.open(ADDRESS);
  using state = client({ address: `${way.address},${ADDRESS}` });
  await using lease = await state.lease(3_000);
  way.lost = true;
  await using watch = client({ namespace: state.namespace }).watch({ key: 'clock' });
  await watch.ready();
  await state.put('clock', 1, { ttlMs: 4_000, timeoutMs: 300 }).catch(() => state.put('clock', 1, { ttlMs: 4_000 }));
  for await (const event of watch) if (event.type === 'delete') break; // for longer than the lease would have lived
  await state.put('key', 1, { guard: lease });
});

test('a lease that cannot be renewed is lost when its ttl has passed, whatever the way is doing', async () => {
  using way = await Way.open(ADDRESS);
  using state = client({ address: way.address });
  const lease = await state.lease(1_000);
  const work = new Promise((_, reject) => {
    lease.signal.addEventListener('abort', () => reject(lease.signal.reason));
  });
  way.lost = true;
  const { signal } = lease;
  const call = state.get('key', { signal, timeoutMs: 60_000 });
  await assert.rejects(work, (error) => error instanceof LeaseLost && error.leaseId === lease.id);
  assert(!lease.alive);
  await assert.rejects(call, LeaseLost); // given up with it
});

test('a signal gives a call up at once, wherever it is', async () => {
  using way = await Way.open(ADDRESS);
  using lost = client({ address: way.address, timeoutMs: 60_000 });
  await lost.put('key', 1);
  way.lost = true; // a call hangs
  using silent = client({ address: way.address, timeoutMs: 60_000, tls: { serverName: 'way' } }); // it connects
  using dead = client({ address: NOBODY, timeoutMs: 60_000 }); // it waits for the next try
  using asking = client({ timeoutMs: 60_000, token: () => new Promise(() => undefined) });
  const calls: ((state: Client, signal: AbortSignal) => Promise<unknown>)[] = [
    (state, signal) => state.get('key', { signal }),
    (state, signal) => state.list('', { signal }).all(),
    (state, signal) => state.history('', { signal }).all(),
    (state, signal) => state.blame('', { signal }).all(),
    (state, signal) => state.put('key', 1, { signal }),
    (state, signal) => state.delete('key', { signal }),
    (state, signal) => state.deletePrefix('key', { signal }),
    (state, signal) => state.increment('key', 1, { signal }),
    (state, signal) => state.transact({ then: [{ get: 'key' }], signal }),
    (state, signal) => state.transact((tx) => tx.get('key'), { signal }),
    (state, signal) => state.checkpoint('mark', { signal }),
    (state, signal) => state.getCheckpoint('mark', { signal }),
    (state, signal) => state.checkpoints({ signal }).all(),
    (state, signal) => state.deleteCheckpoint('mark', { signal }),
    (state, signal) => state.restore(1, { signal }),
    (state, signal) => state.diff(1, 2, { signal }).all(),
    (state, signal) => state.lease(1_000, { signal }),
    (state, signal) => state.keepAlive(1, { signal }),
    (state, signal) => state.revokeLease(1, { signal }),
    (state, signal) => state.leases({ signal }).all(),
    (state, signal) => state.describe({ signal }),
    (state, signal) => state.fork('other', { signal }),
    (state, signal) => state.merge('other', { signal }),
    (state, signal) => state.compact(1, { signal }),
    (state, signal) => state.deleteNamespace({ signal }),
  ];
  const began = performance.now();
  for (const state of [lost, silent, dead, asking]) {
    const stop = new AbortController();
    const running = calls.map((call) => call(state, stop.signal));
    const settled = Promise.allSettled(running);
    await new Promise((resolve) => setTimeout(resolve, 20));
    stop.abort(new Error('enough'));
    for (const result of await settled) assert(result.status === 'rejected' && result.reason === stop.signal.reason);
    for (const call of calls) await assert.rejects(call(state, stop.signal), (error) => error === stop.signal.reason);
    const ended = new AbortController();
    const waiting = state.watch({ prefix: '', signal: ended.signal, timeoutMs: 60_000 }).next();
    ended.abort();
    assert.deepEqual(await waiting, { done: true, value: undefined });
  }
  assert(performance.now() - began < 30_000, 'it waited for a timeout');
});

test('a client that is closed ends what is open, and says so', async () => {
  using way = await Way.open(ADDRESS);
  const closed = /^Error: the client is closed$/;
  const asking = client({ timeoutMs: 60_000, token: () => new Promise(() => undefined) });
  const lost = client({ address: way.address, timeoutMs: 60_000 });
  await lost.put('key', 1);
  way.lost = true;
  const silent = client({ address: way.address, timeoutMs: 60_000, tls: { serverName: 'way' } });
  const open = client();
  for (const state of [lost, silent, asking, client({ address: NOBODY, timeoutMs: 60_000 }), open]) {
    const watch = state.watch({ prefix: '' });
    const calls = [watch.next(), state.get('key'), state.put('key', 1).then(() => state.put('key', 2)), state.compact(1)];
    if (state === open) await watch.ready();
    const settled = Promise.allSettled(calls);
    state.close();
    const results = await settled;
    assert(results[0]?.status === 'rejected');
    for (const result of results) {
      if (result.status === 'rejected') assert.match(String(result.reason), closed);
      else assert.equal(state, open); // it was answered before
    }
    await assert.rejects(watch.next(), closed);
    await assert.rejects(state.get('key'), closed);
    await assert.rejects(state.compact(1), closed);
    await assert.rejects(state.watch({ prefix: '' }).ready(), closed);
    state.close(); // no error
  }
});

test('a watch that nobody reads takes no more of the server than there is room for', async () => {
  using state = client({ timeoutMs: 60_000 });
  await using watch = state.watch({ prefix: '' });
  await watch.ready();
  const value = Buffer.alloc(512 * 1024, 'x');
  const held = async () => {
    queryObjects(Buffer, { format: 'count' }); // which collects all garbage first
    await new Promise(setImmediate);
    return process.memoryUsage().arrayBuffers;
  };
  const before = await held();
  const count = 128; // 64 MiB
  for (let place = 0; place < count; place++) await state.put('key', value);
  const after = await held();
  assert(after - before < 32 * 2 ** 20, `${(after - before) / 2 ** 20} MiB`);
  for (let place = 1; place <= count; place++) assert.equal((await next(watch)) && watch.revision, BigInt(place));
});

test('who is silent does not keep a process from its end', async () => {
  using way = await Way.open(ADDRESS);
  way.lost = true;
  for (const tls of ['{}', 'false']) {
    const program = `import { connect } from './src/index.ts';
      using state = connect('${way.address}', { timeoutMs: 200, tls: ${tls} });
      await state.get('key').catch((error) => console.log(error.message));`;
    const child = spawn(process.execPath, ['--input-type=module-typescript', '--eval', program], {
      stdio: ['ignore', 'pipe', 'ignore'],
      timeout: 50_000,
    });
    const [said, [code]] = await Promise.all([child.stdout.toArray(), once(child, 'exit')]);
    assert.match(String(said), /it does not answer/);
    assert.equal(code, 0);
  }
});

test('no server at all', async () => {
  using state = client({ address: `${NOBODY},127.0.0.1:2`, timeoutMs: 200 });
  await assert.rejects(state.get('key'), (error) => error instanceof Unavailable && error.reason === 'UNREACHABLE');
});
