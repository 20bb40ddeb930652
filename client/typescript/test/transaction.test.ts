import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Conflict, FailedPrecondition } from '../src/index.ts';
import type { Transaction } from '../src/index.ts';
import { client } from './servers.ts';

test('functions that contend are run again, and nothing is lost', async () => {
  using state = client();
  await state.put('budget', 100);
  let runs = 0;
  const spend = async (tx: Transaction) => {
    runs++;
    const left = ((await tx.get<number>('budget'))?.value ?? 0) - 1;
    tx.put('budget', left);
    return left;
  };
  const left = await Promise.all(Array.from({ length: 20 }, () => state.transact(spend)));
  assert.equal((await state.get('budget'))?.value, 80);
  assert.equal(new Set(left).size, 20);
  assert(runs > 20);
});

test('a phantom under a prefix that was listed makes the function run again', async () => {
  using state = client();
  await state.put('agents/a', 1);
  let runs = 0;
  const count = await state.transact(async (tx) => {
    const { length } = await tx.list('agents/');
    if (!runs++) await state.put('agents/b', 1);
    tx.put('count', length);
    return length;
  });
  assert.deepEqual([runs, count, (await state.get('count'))?.value], [2, 2, 2]);
});

test('what is thrown is thrown, and nothing was written', async () => {
  using state = client();
  const broke = new Error('out of budget');
  let kept: Transaction | undefined;
  await assert.rejects(
    state.transact((tx) => {
      kept = tx;
      tx.put('key', 1);
      throw broke;
    }),
    broke,
  );
  assert.equal(await state.get('key'), undefined);
  await assert.rejects(kept?.get('key') ?? Promise.resolve(), /has ended/);
  assert.throws(() => kept?.put('key', 1), /has ended/);
});

test('reads see the writes of the function itself', async () => {
  using state = client();
  for (const key of ['a/1', 'a/2', 'b']) await state.put(key, key);
  await state.put('n', 5);
  const seen = await state.transact(async (tx) => {
    tx.deletePrefix('a/');
    tx.put('a/3', 'new');
    tx.increment('n', 2);
    tx.increment('n', -10n);
    tx.delete('b');
    tx.increment('b', 3);
    tx.put('c', 1);
    tx.increment('c');
    return {
      listed: (await tx.list('a/')).map(({ key, value, version }) => [key, value, version]),
      values: await Promise.all(['n', 'b', 'c', 'a/1'].map(async (key) => (await tx.get(key))?.value)),
    };
  });
  assert.deepEqual(seen, { listed: [['a/3', 'new', 0n]], values: [-3, 3, 2, undefined] });
  const after = await state.list().all();
  assert.deepEqual(
    after.map(({ key, value }) => [key, value]),
    [
      ['a/3', 'new'],
      ['b', 3],
      ['c', 2],
      ['n', -3],
    ],
  );
  assert.equal(new Set(after.map(({ modRevision }) => modRevision)).size, 1);
  await assert.rejects(
    state.transact((tx) => tx.put('c', 'x') ?? tx.increment('c')),
    FailedPrecondition,
  );
});

test('who loses until the time is up is told of a conflict', async () => {
  using state = client();
  await state.put('key', 0);
  const losing = state.transact(
    async (tx) => {
      await tx.get('key');
      await state.increment('key');
      tx.put('other', 1);
    },
    { timeoutMs: 100 },
  );
  await assert.rejects(losing, (error) => error instanceof Conflict && error.key === 'key' && error.version! > 1n);
});

test('conditions and operations as they are sent', async () => {
  using state = client();
  await state.put('budget', 10);
  const done = await state.transact({
    conditions: [
      { key: 'budget', version: 1 },
      { key: 'budget', value: 10 },
      { key: 'budget', modRevision: 5n, is: '<' },
      { key: 'lock', exists: false },
      { prefix: 'agents/', unchangedSince: 1 },
    ],
    then: [
      { put: 'lock', value: 'node', returnPrevious: true },
      { increment: 'budget', by: 5 },
      { get: 'budget' },
      { list: '', limit: 1, keysOnly: true },
      { delete: 'absent' },
      { deletePrefix: 'agents/' },
    ],
  });
  assert.equal(done.committed, true);
  const [put, increment, get, list, gone] = done.results;
  assert.deepEqual(put, { type: 'put', version: 1n, previous: undefined, leaseId: 0n });
  assert.deepEqual(increment, { type: 'increment', value: 15n, version: 2n });
  assert(get?.type === 'get' && get.entry?.value === 15);
  assert(list?.type === 'list' && list.more && list.entries[0]?.key === 'budget');
  assert(gone?.type === 'delete' && gone.deleted === 0n);

  const lost = await state.transact({
    conditions: [
      { key: 'budget', version: 1 },
      { key: 'none', exists: true },
    ],
    then: [{ deletePrefix: '' }],
    otherwise: [{ get: 'lock' }],
  });
  assert.equal(lost.committed, false);
  assert.deepEqual(
    lost.failed.map(({ index, current }) => [index, current?.value]),
    [
      [0, 15],
      [1, undefined],
    ],
  );
  assert(lost.results[0]?.type === 'get' && lost.results[0].entry?.value === 'node');
  await assert.rejects(state.transact({ then: [{ nothing: 1 } as never] }), TypeError);
  await assert.rejects(state.transact({ conditions: [{ key: 'a' } as never] }), TypeError);
  await assert.rejects(state.transact({ conditions: [{ key: 'a', version: 1, is: '~' as never }] }), RangeError);
});
