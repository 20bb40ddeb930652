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

test('a connection by TLS that cannot be made says why', asked, async () => {
  const tls = { ca: file('ca'), cert: file('cert'), key: file('key') };
  const given: [Parameters<typeof client>[0], RegExp, string][] = [
    [{ tls: { ...tls, serverName: 'elsewhere' } }, /does not match certificate's altnames/, 'TLS_FAILED'],
    [{ tls: { cert: tls.cert, key: tls.key } }, /unable to verify the first certificate$/, 'TLS_FAILED'],
    [{ tls: { ca: tls.ca } }, /expects TLS, or another client certificate$/, 'UNREACHABLE'],
    [{}, /expects TLS, or another client certificate$/, 'UNREACHABLE'],
  ];
  for (const [options, why, reason] of given) {
    using state = client({ address, timeoutMs: 300, ...options });
    await assert.rejects(state.get('key'), (error) => {
      assert(error instanceof Unavailable, String(error));
      assert.match(error.message, why);
      assert.equal(error.reason, reason);
      return true;
    });
  }
});
