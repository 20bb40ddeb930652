/**
 * A server that asks who calls. COMITY_TEST_SECURE is its address, and COMITY_TEST_FILES a folder: ca, cert, key, token, and
 * a certificate that it does not know, strange-cert, with strange-key.
 */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
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

test('a connection that cannot be made, by TLS or since it is not, says why before the time is up', asked, async () => {
  const tls = { ca: file('ca'), cert: file('cert'), key: file('key') };
  const plain = process.env['COMITY_ADDRESS'] ?? '';
  const given: [Parameters<typeof client>[0], string][] = [
    [{ tls: { ...tls, serverName: 'elsewhere' } }, 'its certificate is for another name'],
    [
      { tls: { cert: tls.cert, key: tls.key } },
      'its certificate is signed by none of the authorities that are trusted here (COMITY_TLS_CA)',
    ],
    [
      { address: plain, tls: { ca: tls.ca } },
      'it does not speak TLS: connect in plain text (COMITY_TLS=0), or to the port that does',
    ],
    [{ tls: false }, 'it expects TLS, and this was plain text: connect by TLS (COMITY_TLS=1, COMITY_TLS_CA)'],
    [{ tls: { ca: tls.ca } }, 'it asks for a client certificate (COMITY_TLS_CLIENT_CERT, COMITY_TLS_CLIENT_KEY)'],
    [
      { tls: { ca: tls.ca, cert: file('strange-cert'), key: file('strange-key') } },
      'it does not accept the client certificate',
    ],
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

test('what hangs up since the server behind it is away is tried again until the time is up', async () => {
  let tries = 0;
  await using between = createServer((socket) => {
    tries++;
    socket.destroy();
  });
  await once(between.listen(0, '127.0.0.1'), 'listening');
  using state = client({ address: `127.0.0.1:${(between.address() as AddressInfo).port}`, timeoutMs: 1_500, tls: false });
  await assert.rejects(state.get('key'), (error) => {
    return error instanceof Unavailable && error.reason === 'UNREACHABLE' && /closed the connection at once/.test(error.message);
  });
  assert(tries > 3);
});

test('new certificates in the files are taken by the next connection', asked, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'comity-'));
  try {
    const [certFile, keyFile] = [join(folder, 'cert'), join(folder, 'key')];
    const write = (of: string) => {
      writeFileSync(certFile, file(`${of}cert`));
      writeFileSync(keyFile, file(`${of}key`));
    };
    write('strange-');
    using state = client({ address, author: '', tls: { ca: file('ca'), certFile, keyFile } });
    await assert.rejects(state.put('key', 1, { timeoutMs: 300 }), Unavailable);
    write('');
    await state.put('key', 1);
    assert.deepEqual((await state.history().all()).map(({ author }) => author), ['node']);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
