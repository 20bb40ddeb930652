import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { Conflict, LeaseLost, LeaseNotFound } from '../src/index.ts';
import { client, next } from './servers.ts';

test('keys live by a lease until the end of the block', async () => {
  using state = client();
  {
    await using lease = await state.lease(10_000);
    assert(lease.alive && lease.remainingMs > 5_000 && lease.fence === lease.id);
    await state.put('here', 1, { lease });
    await state.transact((tx) => tx.put('there', 1, { lease }));
    assert.equal((await state.get('here'))?.leaseId, lease.id);
    const [info] = await state.leases().all();
    assert.deepEqual([info?.id, info?.ttlMs, info?.keyCount, info?.author], [lease.id, 10_000, 2n, 'node']);
  }
  assert.deepEqual(await state.list().all(), []);
});

test('a lease outlives its ttl while it is kept alive', async () => {
  using state = client();
  const put = await state.put('session', 1, { ttlMs: 1_000 });
  const lease = await state.keepAlive(put.leaseId);
  const { updateTime } = (await state.get('session'))!;
  await using watch = state.watch({ key: 'session' });
  await watch.ready();
  const age = async () => {
    await state.put('clock', 1);
    return (await state.get('clock'))!.updateTime.getTime() - updateTime.getTime(); // by the clock of the store
  };
  while ((await age()) < 1_500) await sleep(50);
  assert(lease.alive && (await state.get('session')));
  lease.close();
  const ended = await next(watch);
  assert(ended.type === 'delete' && ended.cause === 'lease-expiry');
  assert(!lease.alive);
});

test('who has lost a lease is told, and can write nothing more', async () => {
  using state = client();
  const lease = await state.lease(60_000);
  const { guard } = lease;
  await state.put('report', 'all is well', { guard: lease });
  const lost = once(lease.signal, 'abort');
  assert.equal(await state.revokeLease(lease.id), 0n);
  await lost; // the server says so unasked
  assert(!lease.alive && lease.signal.reason instanceof LeaseLost);
  assert.throws(() => lease.check(), LeaseLost);
  await assert.rejects(state.put('report', 'late', { guard: lease }), LeaseLost); // known here
  await assert.rejects(state.put('report', 'late', { guard }), (error) => {
    return error instanceof LeaseLost && error.leaseId === guard.leaseId; // known there
  });
  await assert.rejects(
    state.transact((tx) => tx.get('report'), { guard }),
    LeaseLost,
  );
  await assert.rejects(state.put('key', 1, { lease: guard.leaseId }), LeaseNotFound);
  await assert.rejects(state.keepAlive(guard.leaseId), LeaseNotFound);
  await lease.revoke(); // no error
  assert.equal((await state.get('report'))?.value, 'all is well');
});

test('a lease is told lost by a write that the server refuses for it', async () => {
  using state = client();
  await using lease = await state.lease(60_000);
  const other = await state.keepAlive(lease.id);
  await state.revokeLease(lease.id);
  await assert.rejects(state.put('key', 1, { guard: lease }), LeaseLost);
  assert(lease.signal.aborted && other.signal.aborted);
});

test('who was stopped for longer than the ttl knows it before anything else', async () => {
  using state = client();
  const lease = await state.lease(1_000);
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1_050); // nothing runs meanwhile
  assert(!lease.alive && lease.remainingMs === 0);
  await assert.rejects(state.put('key', 1, { guard: lease }), LeaseLost);
  assert(lease.signal.aborted);
});

test('a lock as the recipes have it: one holder at a time, in the order of asking', async () => {
  using state = client();
  const order: bigint[] = [];
  let held = 0;
  const holder = async (name: string) => {
    const mine = `locks/l/${name}`;
    const joined = await state.transact({ then: [{ put: mine, value: { owner: name }, ttlMs: 10_000 }] });
    const [put] = joined.results;
    assert(put?.type === 'put');
    await using lease = await state.keepAlive(put.leaseId);
    for (;;) {
      const line = await state.list('locks/l/').all();
      const before = line.filter(({ createRevision }) => createRevision < joined.revision).at(-1);
      if (!before) break;
      for await (const event of state.watch({ key: before.key, from: before.modRevision + 1n })) {
        if (event.type !== 'put') break;
      }
    }
    assert.equal(++held, 1);
    order.push(lease.fence);
    await state.put('at', name, { guard: lease });
    held--;
  };
  await Promise.all(['a', 'b', 'c', 'd'].map(holder));
  assert.deepEqual(order, order.toSorted());
});

test('a lease is of one namespace', async () => {
  using state = client();
  await using lease = await state.lease(10_000);
  const other = state.withOptions({ namespace: `${state.namespace}-2` });
  await assert.rejects(other.put('key', 1, { lease }), RangeError);
  await assert.rejects(other.put('key', 1, { guard: lease }), RangeError);
  for (const ttlMs of [0, -1, NaN, Infinity]) await assert.rejects(state.lease(ttlMs), RangeError);
  await assert.rejects(state.lease(1), { reason: 'INVALID_REQUEST' });
  await state.put('key', 1, { guard: lease, ifVersion: 0 });
  await assert.rejects(state.put('key', 1, { guard: lease, ifVersion: 0 }), Conflict);
});
