/** A server that asks who calls. COMITY_TEST_SECURE is its address, and COMITY_TEST_FILES a folder: ca, cert, key, token. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { PermissionDenied, Unauthenticated, Unavailable } from '../src/index.ts';
import { client, next } from './servers.ts';

const address = process.env['COMITY_TEST_SECURE'] ?? '';
const file = (name: string) => readFileSync(join(process.env['COMITY_TEST_FILES'] ?? '', name));
const asked = { skip: address ? false : 'there is no COMITY_TEST_SECURE' };

test('a client certificate says who calls, and a token says it with more weight', asked, async () => {
  const tls = { ca: file('ca'), cert: file('cert'), key: file('key').toString() };
  const token = file('token').toString();
  using state = client({ address, tls, author: '' });
  await state.put('key', 1);
  let calls = 0;
  const named = client({ address, tls, author: '', namespace: state.namespace, token: async () => (calls++, token) });
  using planner = named;
  await planner.put('key', 2);
  await planner.withOptions({ author: 'planner/7' }).put('key', 3);
  assert.equal(calls, 2);
  const authors = (await state.history().all()).map(({ author }) => author);
  assert.deepEqual(authors, ['planner/7', 'planner', 'node']);
  await assert.rejects(planner.withOptions({ author: 'other' }).put('key', 4), (error) => {
    return error instanceof PermissionDenied && error.reason === 'AUTHOR_NOT_PRINCIPAL';
  });

  await using watch = planner.watch({ prefix: '', from: 1 });
  assert.equal((await next(watch)).type, 'put');
  {
    await using lease = await planner.lease(10_000);
    assert(lease.alive);
  }

  using wrong = client({ address, tls, token: 'cmt_wrong' });
  const unknown = (error: unknown) => error instanceof Unauthenticated && !error.message.includes('cmt_wrong');
  await assert.rejects(wrong.get('key'), unknown);
  await assert.rejects(wrong.watch({ key: 'key' }).next(), unknown);
  await assert.rejects(wrong.lease(10_000), unknown);
});

test('a connection by TLS that cannot be made says why, before the time is up', asked, async () => {
  const tls = { ca: file('ca'), cert: file('cert'), key: file('key') };
  const plain = process.env['COMITY_ADDRESS'] ?? '';
  const given: [Parameters<typeof client>[0], string][] = [
    [{ tls: { ...tls, serverName: 'elsewhere' } }, 'its certificate is for another name'],
    [
      { tls: { cert: tls.cert, key: tls.key } },
      'its certificate is signed by none of the authorities that are trusted here',
    ],
    [{ address: plain, tls: { ca: tls.ca } }, 'it does not speak TLS'],
  ];
  const tries = given.flatMap(([options, why]) => {
    const state = client({ address, timeoutMs: 60_000, ...options });
    return [state.get('key'), state.compact(1), state.watch({ prefix: '' }).ready()].map((call) => {
      return assert.rejects(call, (error) => {
        assert(error instanceof Unavailable, String(error));
        assert.equal(error.message, `cannot reach ${state.address}: ${why}`);
        assert.equal(error.reason, 'TLS_FAILED');
        return true;
      });
    });
  });
  const began = performance.now();
  await Promise.all(tries);
  assert(performance.now() - began < 30_000, 'it went on for as long as it may');
});

test('a server that hangs up may expect TLS or a client certificate', asked, async () => {
  for (const options of [{ tls: { ca: file('ca') } }, { tls: false }]) {
    using state = client({ address, timeoutMs: 300, ...options });
    await assert.rejects(state.get('key'), (error) => {
      assert(error instanceof Unavailable, String(error));
      assert.match(error.message, /expects TLS, or another client certificate$|it asks for a client certificate$/);
      return true;
    });
  }
});
