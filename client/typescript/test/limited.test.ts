/** A server that lets two calls a second in. COMITY_TEST_LIMITED is its address. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { RateLimited } from '../src/index.ts';
import { client } from './servers.ts';

const address = process.env['COMITY_TEST_LIMITED'] ?? '';
const limited = { skip: address ? false : 'there is no COMITY_TEST_LIMITED' };

test('calls wait for their turn as long as they have the time, and are told where they have not', limited, async () => {
  using state = client({ address, timeoutMs: 60_000 });
  await state.put('key', 1);
  const settled = await Promise.allSettled(Array.from({ length: 8 }, () => state.get('key', { timeoutMs: 400 })));
  const refused = settled.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []));
  assert(refused.length > 0);
  for (const error of refused) {
    assert(error instanceof RateLimited, String(error));
    assert.deepEqual([error.code, error.reason], ['RESOURCE_EXHAUSTED', 'RATE_LIMITED']);
    assert((error.retryAfterMs ?? 0) > 0);
  }
  await state.put('key', 2);
  assert.equal(await state.compact(), 2n);
  assert.equal((await state.get('key'))?.version, 2n);
});
