/** What a client does where a server refuses, over connections as they are. */

import assert from 'node:assert/strict';
import { getEventListeners, once } from 'node:events';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { queryObjects } from 'node:v8';

import { status } from '@grpc/grpc-js';

import { RateLimited, ResourceExhausted, Unauthenticated, Unavailable } from '../src/index.ts';
import type { Client } from '../src/index.ts';
import { failure, refusal, Scripted } from './scripted.ts';
import { client } from './servers.ts';

const CALLS: Record<string, (state: Client) => Promise<unknown>> = {
  Get: (state) => state.get('key'),
  Watch: (state) => state.watch({ prefix: '' }).ready(),
  DeleteNamespace: (state) => state.deleteNamespace(),
  Compact: (state) => state.compact(),
};

test('where there is no room calls wait for as long as the server says', async () => {
  using server = await Scripted.start();
  using idle = await Scripted.start();
  using state = client({ address: `${server.address},${idle.address}`, timeoutMs: 60_000 });
  for (const call of Object.values(CALLS)) {
    server.calls.length = 0;
    for (let times = 0; times < 2; times++) server.failures.push(refusal(status.RESOURCE_EXHAUSTED, 'RATE_LIMITED', 50));
    await call(state);
    const [first, second, third] = server.calls.map(({ at }) => at);
    assert(second! - first! >= 50 && third! - second! >= 50);
  }
  assert.deepEqual(idle.calls, []); // nothing is wrong with the first one
});

test('who cannot wait for so long is told at once', async () => {
  using server = await Scripted.start();
  using state = client({ address: server.address, timeoutMs: 20_000 });
  for (const call of Object.values(CALLS)) {
    server.failures.push(refusal(status.RESOURCE_EXHAUSTED, 'RATE_LIMITED', 30_000));
    await assert.rejects(call(state), (error) => error instanceof RateLimited && error.retryAfterMs === 30_000);
  }
});

test('what cannot be repeated is where the server did not take it', async () => {
  using server = await Scripted.start();
  using state = client({ address: server.address, timeoutMs: 60_000 });
  for (const call of ['DeleteNamespace', 'Compact']) {
    server.calls.length = 0;
    server.failures.push(refusal(status.UNAVAILABLE, 'DRAINING'));
    await CALLS[call]!(state);
    assert.equal(server.calls.length, 2);
    server.failures.push(failure(status.UNAVAILABLE, 'who knows what it did'));
    await assert.rejects(CALLS[call]!(state), Unavailable);
    assert.equal(server.calls.length, 3);
  }
});

test('a quota is no lack of room', async () => {
  using server = await Scripted.start();
  using state = client({ address: server.address, timeoutMs: 20_000 });
  server.failures.push(refusal(status.RESOURCE_EXHAUSTED, 'QUOTA'));
  await assert.rejects(state.get('key'), (error) => error instanceof ResourceExhausted && !(error instanceof RateLimited));
  assert.equal(server.calls.length, 1);
});

test('a token that is refused is followed by a new one, if there is one, once', async () => {
  using server = await Scripted.start();
  for (const [name, call] of Object.entries(CALLS)) {
    const tokens = ['old', 'new'];
    let asked = 0;
    using state = client({ address: server.address, token: () => tokens[Math.min(asked++, 1)] as string });
    const refused = () => refusal(status.UNAUTHENTICATED, 'UNAUTHENTICATED');
    server.calls.length = 0;
    server.failures.push(refused());
    await call(state);
    assert.deepEqual(
      server.calls.map(({ method, bearer }) => [method, bearer]),
      [
        [name, 'Bearer old'],
        [name, 'Bearer new'],
      ],
    );
    server.calls.length = 0;
    server.failures.push(refused());
    await assert.rejects(call(state), Unauthenticated); // there is no other one
    assert.equal(server.calls.length, 1);
    asked = 0;
    server.failures.push(refused(), refused());
    await assert.rejects(call(state), Unauthenticated);
    assert.equal(server.failures.length, 0);
  }
});

test('a token that there is not is said to be missing, and one that does not come costs the timeout', async () => {
  using server = await Scripted.start();
  const given = [
    [() => Promise.reject(new Error('no vault')), /^there is no token: no vault$/],
    [() => 'in two words', /must be of letters, digits/],
    [() => '', /is empty/],
    [() => process.env['COMITY_NO_SUCH_VARIABLE'] as string, /must be a string, .*undefined/],
  ] as const;
  for (const [token, why] of given) {
    using state = client({ address: server.address, token });
    await assert.rejects(state.get('key'), (error) => {
      return error instanceof Unauthenticated && error.reason === 'NO_TOKEN' && why.test(error.message);
    });
  }
  using never = client({ address: server.address, timeoutMs: 100, token: () => new Promise(() => undefined) });
  await assert.rejects(never.get('key'), { code: 'DEADLINE_EXCEEDED' });
  await assert.rejects(never.watch({ prefix: '' }).ready(), { code: 'DEADLINE_EXCEEDED' });
  assert.deepEqual(server.calls, []);
});

test('a lease that may not be kept alive any more is lost alone', async () => {
  using server = await Scripted.start();
  using idle = await Scripted.start();
  using state = client({ address: `${server.address},${idle.address}` });
  await using kept = await state.keepAlive(1);
  await using denied = await state.keepAlive(2);
  const { namespace } = state;
  server.failures.push(
    refusal(status.UNAUTHENTICATED, 'UNAUTHENTICATED'), // the next stream may have another token
    refusal(status.RESOURCE_EXHAUSTED, 'RATE_LIMITED', 50),
    refusal(status.PERMISSION_DENIED, 'PERMISSION_DENIED', undefined, { namespace, lease_id: '2' }),
  );
  await once(denied.signal, 'abort');
  assert.match(String(denied.signal.reason), /permission_denied$/);
  while (!server.renewed.includes(kept.id)) await sleep(10); // on another stream
  assert(kept.alive && !server.renewed.includes(denied.id));
  assert.deepEqual(idle.calls, []); // nothing is wrong with the first one
});

test('a watch keeps nothing of the streams that it had', async () => {
  using server = await Scripted.start();
  using state = client({ address: server.address });
  const stop = new AbortController();
  server.watchesEnd = refusal(status.UNAVAILABLE, 'DRAINING');
  const watch = state.watch({ prefix: '', signal: stop.signal });
  const waiting = watch.next();
  const opened = async (count: number) => {
    while (server.calls.length < count) await sleep(10);
    return queryObjects(Readable, { format: 'count' });
  };
  const before = await opened(10);
  const after = await opened(60);
  assert(after - before < 25, `${before} streams, and after 50 reconnections ${after}`);
  assert(getEventListeners(stop.signal, 'abort').length <= 1);
  stop.abort();
  assert.deepEqual(await waiting, { done: true, value: undefined });
  const other = new AbortController();
  server.failures.push(refusal(status.PERMISSION_DENIED, 'PERMISSION_DENIED'));
  await assert.rejects(state.watch({ prefix: '', signal: other.signal }).next(), { code: 'PERMISSION_DENIED' });
  assert.deepEqual(getEventListeners(other.signal, 'abort'), []);
});
