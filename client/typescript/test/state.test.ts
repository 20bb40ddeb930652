import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  Compacted,
  Conflict,
  connect,
  DecodeError,
  FailedPrecondition,
  InvalidArgument,
  NotFound,
  OutOfRange,
  Unavailable,
} from '../src/index.ts';
import { client } from './servers.ts';

test('a value is stored as JSON, bytes as they are, text by its content type', async () => {
  using state = client();
  const written = await state.put('plan', { step: 1, names: ['Ä', '世界'] });
  assert.deepEqual(written, { revision: 1n, version: 1n, previous: undefined, leaseId: 0n });
  const plan = await state.get<{ step: number }>('plan');
  assert.deepEqual(plan?.value, { step: 1, names: ['Ä', '世界'] });
  assert.deepEqual([plan?.contentType, plan?.version, plan?.createRevision], ['application/json', 1n, 1n]);
  assert(plan && Math.abs(Date.now() - plan.updateTime.getTime()) < 60_000);

  await state.put('bytes', new Uint8Array([0, 255]));
  const bytes = await state.get('bytes');
  assert.deepEqual([bytes?.value, bytes?.contentType], [new Uint8Array([0, 255]), 'application/octet-stream']);
  await state.put('text', 'Grüße', { contentType: 'text/plain' });
  assert.equal((await state.get('text'))?.value, 'Grüße');
  await state.put('broken', new TextEncoder().encode('{'), { contentType: 'application/json' });
  const broken = await state.get('broken');
  assert.throws(() => broken?.value, DecodeError);
  assert.equal(await state.get('absent'), undefined);
});

test('a write on a condition is lost to who was faster', async () => {
  using state = client();
  await state.put('plan', 1, { ifVersion: 0 });
  const entry = await state.get('plan');
  const over = await state.put('plan', 2, { ifVersion: entry?.version, returnPrevious: true });
  assert.deepEqual([over.version, over.previous?.value], [2n, 1]);
  for (const options of [{ ifVersion: 0 }, { ifVersion: 1n }, { ifRevision: 1n }]) {
    await assert.rejects(state.put('plan', 3, options), (error) => {
      assert(error instanceof Conflict);
      const { code, reason, key, version, modRevision } = error;
      assert.deepEqual([code, reason, key, version, modRevision], ['ABORTED', 'CONFLICT', 'plan', 2n, 2n]);
      return true;
    });
  }
  await assert.rejects(state.delete('plan', { ifVersion: 1 }), Conflict);
  const gone = await state.delete('plan', { ifVersion: 2, returnPrevious: true });
  assert.deepEqual([gone.deleted, gone.previous.map(({ value }) => value)], [1n, [2]]);
  assert.equal((await state.delete('plan')).deleted, 0n);
});

test('a list has all pages at one revision', async () => {
  using state = client();
  for (const key of ['a/1', 'a/2', 'a/3', 'b/1']) await state.put(key, key);
  const seen: string[] = [];
  for await (const { key, value } of state.list<string>('a/', { pageSize: 2 })) {
    if (!seen.length) await state.put('a/4', 'late');
    assert.equal(value, key);
    seen.push(key);
  }
  assert.deepEqual(seen, ['a/1', 'a/2', 'a/3']);
  assert.equal((await state.list('', { keysOnly: true }).all()).length, 5);
  assert.deepEqual(
    (await state.list('', { revision: 1n }).all()).map(({ key }) => key),
    ['a/1'],
  );
  assert.equal((await state.deletePrefix('a/')).deleted, 4n);
  assert.deepEqual(
    (await state.list().all()).map(({ key }) => key),
    ['b/1'],
  );
});

test('increments are whole numbers beyond what a double could add', async () => {
  using state = client();
  assert.equal((await state.increment('count', 2n ** 53n - 1n)).value, 2n ** 53n - 1n);
  await assert.rejects(state.increment('count'), (error) => {
    return error instanceof FailedPrecondition && error.reason === 'NOT_A_NUMBER';
  });
  assert.equal((await state.increment('count', -1)).value, 2n ** 53n - 2n);
});

test('history and blame say who and why', async () => {
  using state = client();
  await state.put('plan', 1, { message: 'because' });
  await state.withOptions({ author: 'other' }).put('plan', 2);
  const commits = await state.history('', { previous: true }).all();
  assert.deepEqual(
    commits.map(({ revision, author, message }) => [revision, author, message]),
    [
      [2n, 'other', ''],
      [1n, 'node', 'because'],
    ],
  );
  assert.deepEqual([commits[0]?.events[0]?.previous?.value, commits[0]?.events[0]?.cause], [1, 'client']);
  const oldest = await state.history('', { oldestFirst: true, pageSize: 1 }).all();
  assert.deepEqual(
    oldest.map(({ revision }) => revision),
    [1n, 2n],
  );
  const [blamed] = await state.blame('plan').all();
  assert.deepEqual([blamed?.author, blamed?.entry.modRevision], ['other', 2n]);
});

test('what does not fit is refused, by the server with the fields at fault', async () => {
  using state = client();
  await assert.rejects(state.put('', 1), (error) => {
    assert(error instanceof InvalidArgument);
    assert.deepEqual(error.violations, [{ field: 'key', description: 'is required' }]);
    assert.match(error.requestId, /^[\w-]+$/); // by which its log has the call
    return true;
  });
  await assert.rejects(state.get('a\0b'), InvalidArgument);
  await assert.rejects(state.put('x'.repeat(2_000), 1), InvalidArgument);
  await assert.rejects(state.put('key', 'x'.repeat(2_000_000)), InvalidArgument);
  await assert.rejects(state.get('key', { revision: 7 }), OutOfRange);
  await assert.rejects(state.describe(), NotFound);
  await assert.rejects(state.withOptions({ namespace: 'No Name' }).get('key'), InvalidArgument);
  for (const value of [undefined, () => 1, 1n]) await assert.rejects(state.put('key', value), TypeError);
  for (const value of [NaN, [Infinity]]) await assert.rejects(state.put('key', value), RangeError);
  await assert.rejects(state.put('\ud800', 1), RangeError);
  await assert.rejects(state.put(1 as never, 1), TypeError);
  await assert.rejects(state.get('key', { revision: 1.5 }), RangeError);
  await assert.rejects(state.get('key', { revision: 2n ** 63n }), RangeError);
  await assert.rejects(state.get('key', { timeoutMs: 0 }), RangeError);
  await assert.rejects(state.put('key', 1, { lease: 1, ttlMs: 1_000 }), TypeError);
  assert.throws(() => state.list('', { pageSize: -1 }), RangeError);
  assert.equal(await state.get('key'), undefined);
});

test('what is compacted cannot be read', async () => {
  using state = client();
  for (const value of [1, 2, 3]) await state.put('key', value);
  assert.equal((await state.get('key', { revision: 1 }))?.value, 1);
  assert.equal(await state.compact(), 3n);
  await assert.rejects(state.get('key', { revision: 1 }), (error) => {
    return error instanceof Compacted && error.reason === 'COMPACTED' && error.floor === 3n;
  });
  await state.deleteNamespace();
  assert.equal(await state.get('key'), undefined);
});

test('a write is named, so that a repeat of it is no second one', async () => {
  using state = client();
  const requestId = { client: 'me', sequence: 1 };
  assert.deepEqual(await state.put('key', 1, { requestId }), await state.put('key', 1, { requestId }));
  assert.equal((await state.get('key'))?.version, 1n);
  await assert.rejects(state.put('key', 2, { requestId }), (error) => {
    return error instanceof InvalidArgument && error.reason === 'REQUEST_ID_REUSED';
  });
});

test('a signal gives a call up, and a closed client makes none', async () => {
  const state = client();
  const reason = new Error('enough');
  await assert.rejects(state.get('key', { signal: AbortSignal.abort(reason) }), reason);
  using unreachable = connect('127.0.0.1:1');
  await assert.rejects(unreachable.get('key', { signal: AbortSignal.timeout(50) }), { name: 'TimeoutError' });
  state.close();
  await assert.rejects(state.get('key'), /the client is closed/);
});

test('of several addresses it takes one that answers', async () => {
  using none = client({ address: '127.0.0.1:1', timeoutMs: 200 });
  await assert.rejects(none.put('key', 1), (error) => {
    assert(error instanceof Unavailable);
    assert.equal(error.reason, 'UNREACHABLE');
    assert.equal(error.message, 'cannot reach 127.0.0.1:1: connect ECONNREFUSED 127.0.0.1:1');
    return true;
  });
  using state = client({ address: `127.0.0.1:1,localhost:1,${process.env['COMITY_ADDRESS']}` });
  assert.equal((await state.put('key', 1)).revision, 1n);
  for (const address of ['', 'host:port', 'a b', '[::1]:0', 'x:70000', 'a,,b']) {
    if (address) assert.throws(() => connect(address), RangeError, address);
  }
  for (const options of [{ token: '' }, { token: 'a\nb' }, { tls: { ca: 'ca.pem' } }, { timeoutMs: Infinity }]) {
    assert.throws(() => connect('localhost', options), RangeError);
  }
  assert.throws(() => connect('localhost', { tls: { cert: '-----BEGIN ' } }), TypeError);
});
