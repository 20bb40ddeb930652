/** What is told of a call that was tried several times: it is true of all its tries. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { DeadlineExceeded, RateLimited, Unavailable } from '../src/index.ts';
import { now, Retry } from '../src/retry.ts';

const limited = () => new RateLimited('nothing was done', { reason: 'RATE_LIMITED', retryAfterMs: 1 });
const away = () => new Unavailable('nobody answers', { reason: 'UNREACHABLE' });

test('a write whose last try had no answer is not said to be undone', () => {
  const retry = new Retry(now() + 60_000);
  const first = limited();
  retry.delay(first);
  assert.throws(
    () => retry.delay(new DeadlineExceeded('no answer')),
    (error) => error instanceof DeadlineExceeded && error.cause === first && /nothing was done/.test(error.message),
  );
});

test('nor is one of which an earlier try had none', () => {
  const retry = new Retry(now() + 60_000);
  retry.delay(away());
  const last = new RateLimited('nothing was done', { reason: 'RATE_LIMITED', retryAfterMs: 120_000 });
  assert.throws(
    () => retry.delay(last),
    (error) => error instanceof DeadlineExceeded && error.cause === last,
  );
});

test('a server that is away is told of as such, and a limit alone as a limit', () => {
  const retry = new Retry(now() + 60_000);
  const first = away();
  retry.delay(first);
  assert.throws(() => retry.delay(new DeadlineExceeded('no answer')), first);
  const last = new RateLimited('nothing was done', { reason: 'RATE_LIMITED', retryAfterMs: 120_000 });
  assert.throws(() => new Retry(now() + 60_000).delay(last), last);
});
