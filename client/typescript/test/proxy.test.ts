/** Where the environment names a proxy of HTTP: what it reads. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';

import { client } from './servers.ts';

const TOKEN = 'cmt_0123456789abcdef0123456789';
const VARIABLES = ['grpc_proxy', 'https_proxy', 'http_proxy', 'no_grpc_proxy', 'no_proxy'];

/** A proxy that the environment names until its end, and what it was asked. */
async function proxied(): Promise<{ asked: string[] } & Disposable> {
  const asked: string[] = [];
  const proxy = createServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', (data) => {
      asked.push(data.toString('latin1'));
      socket.destroy();
    });
  });
  await once(proxy.listen(0, '127.0.0.1'), 'listening');
  const before = VARIABLES.map((name) => [name, process.env[name]] as const);
  for (const name of VARIABLES) delete process.env[name];
  process.env['http_proxy'] = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
  return {
    asked,
    [Symbol.dispose]() {
      delete process.env['http_proxy'];
      for (const [name, value] of before) if (value !== undefined) process.env[name] = value;
      proxy.close();
    },
  };
}

test('a proxy reads nothing that is in plain text, as a token would be', async () => {
  using proxy = await proxied();
  const own = process.env['COMITY_ADDRESS'] ?? '127.0.0.1:7171';
  // The last host may be another machine, for all the client knows.
  for (const host of ['127.0.0.1', 'localhost', '0.0.0.0']) {
    using state = client({ address: own.replace('127.0.0.1', host), tls: false, token: TOKEN });
    await state.put('key', 1);
  }
  assert.deepEqual(proxy.asked, []);
});

test('a proxy has no part in TLS with this machine, and in that with others passes on what it cannot read', async () => {
  using proxy = await proxied();
  for (const [address, asked] of [
    ['localhost:1', []],
    ['state.invalid:7171', ['CONNECT state.invalid:7171 HTTP/1.1']],
  ] as const) {
    using state = client({ address, tls: true, token: TOKEN, timeoutMs: 1_000 });
    await assert.rejects(state.get('key'));
    assert.deepEqual([...new Set(proxy.asked.map((request) => request.split('\r\n')[0]))], asked);
  }
});
