import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { connect } from '../src/index.ts';
import type { ConnectOptions } from '../src/index.ts';
import { access } from '../src/access.ts';
import { ask } from '../src/tokens.ts';

const PEM = '-----BEGIN CERTIFICATE-----\n';

test('a token is not sent in plain text to another machine unless that is said', () => {
  const token = 'secret';
  for (const address of ['127.0.0.1', 'localhost:1', 'LOCALHOST.', '[::1]:1', '::1', '127.9.9.9:1', '::ffff:127.0.0.1']) {
    assert.equal(access({ address, token }, {}).token, token);
  }
  for (const address of ['db:7171', '10.0.0.1', '127.0.0.1,db', '[::2]:1', 'localhost.example.com', '::ffff:10.0.0.1']) {
    const refused = (error: unknown) => {
      assert(error instanceof RangeError);
      assert.match(error.message, /^a token is not sent in plain text to another machine \(.*\): connect by TLS, or say tls: false/);
      return !error.message.includes(token);
    };
    assert.throws(() => access({ address, token }, {}), refused);
    assert.throws(() => access({ address, token: () => token }, {}), refused);
    assert.throws(() => access({ address }, { COMITY_TOKEN: token }), refused);
    assert.throws(() => access({ token }, { COMITY_ADDRESS: address }), refused);
    assert.throws(() => connect(address, { token }), refused);
    assert.equal(access({ address, token, tls: false }, {}).tls, undefined);
    assert.equal(access({ address, token }, { COMITY_TLS: '0' }).tls, undefined);
    assert.deepEqual(access({ address, token, tls: {} }, {}).tls, {});
    assert(access({ address, token }, { COMITY_TLS: '1' }).tls);
    assert.equal(access({ address }, {}).tls, undefined);
  }
});

test('the variables say whether to connect by TLS, and by which files', () => {
  const folder = mkdtempSync(join(tmpdir(), 'comity-'));
  try {
    const file = join(folder, 'ca');
    writeFileSync(file, PEM);
    const of = (variables: Record<string, string>, tls?: ConnectOptions['tls']) => access({ tls }, variables).tls;
    for (const said of ['1', 'true', 'YES', 'on']) assert(of({ COMITY_TLS: said }));
    for (const said of ['0', 'false', 'No', 'OFF']) assert.equal(of({ COMITY_TLS: said, COMITY_TLS_CA: file }), undefined);
    assert.throws(() => of({ COMITY_TLS: 'maybe' }), /^RangeError: COMITY_TLS is 1 or 0, not 'maybe'$/);
    assert.equal(String(of({ COMITY_TLS_CA: file })?.ca), PEM);
    assert.equal(String(of({ COMITY_TLS_CA: file, COMITY_TLS: '0' }, true)?.ca), PEM);
    assert.equal(of({ COMITY_TLS_CA: file }, false), undefined);
    assert.deepEqual(of({ COMITY_TLS_CA: file }, { serverName: 'db' }), { serverName: 'db' });
    assert.equal(of({ COMITY_TLS_SERVER_NAME: 'db' })?.serverName, 'db');
    assert.throws(() => of({ COMITY_TLS_CA: join(folder, 'none') }), { code: 'ENOENT' });
    assert.throws(() => of({ COMITY_TLS_CLIENT_CERT: file }), TypeError); // without its key
    assert.throws(() => of({}, { ca: file }), /is not PEM/);
    assert.throws(() => of({}, { serverName: 'two words' }), RangeError);
    assert.throws(() => of({}, 'yes' as never), TypeError);
    assert.throws(() => of({}, { ca: 1 as never }), TypeError);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('what is no token is refused at once, and not shown', () => {
  for (const token of ['', 'two words', 'line\n', '\u00e9', 'x'.repeat(8_001), 5 as never, null as never]) {
    const hidden = (error: unknown) =>
      (error instanceof RangeError || error instanceof TypeError) && !(token && error.message.includes(token));
    assert.throws(() => access({ token }, {}), hidden);
  }
  assert.throws(() => access({}, { COMITY_TOKEN: 'two words' }), /^RangeError: COMITY_TOKEN must be of letters/);
});

test('the file of a token is read again, and while there is none in it the one before stays', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'comity-'));
  try {
    const file = join(folder, 'token');
    assert.throws(() => access({}, { COMITY_TOKEN_FILE: file }), { code: 'ENOENT' });
    writeFileSync(file, 'one\n');
    const { token } = access({}, { COMITY_TOKEN_FILE: file });
    assert.equal(await ask(token), 'one');
    writeFileSync(file, '');
    assert.equal(await ask(token), 'one');
    writeFileSync(file, 'two\n');
    assert.equal(await ask(token), 'two');
    rmSync(file);
    assert.equal(await ask(token), 'two');
    assert.equal(access({}, { COMITY_TOKEN_FILE: file, COMITY_TOKEN: 'three' }).token, 'three');
  } finally {
    rmSync(folder, { recursive: true });
  }
});
