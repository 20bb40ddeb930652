import assert from 'node:assert/strict';
import { once } from 'node:events';
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
    assert.equal(access({ address, token, tls: false }, {}).certificates, undefined);
    assert.equal(access({ address, token }, { COMITY_TLS: '0' }).certificates, undefined);
    assert.deepEqual(access({ address, token, tls: {} }, {}).certificates?.tls, {});
    assert(access({ address, token }, { COMITY_TLS: '1' }).certificates);
    assert.equal(access({ address }, {}).certificates, undefined);
  }
});

test('the variables say whether to connect by TLS, and by which files', () => {
  const folder = mkdtempSync(join(tmpdir(), 'comity-'));
  try {
    const file = join(folder, 'ca');
    writeFileSync(file, PEM);
    const of = (variables: Record<string, string>, tls?: ConnectOptions['tls']) => {
      const { certificates } = access({ tls }, variables);
      return certificates && { ...certificates.material, serverName: certificates.tls.serverName };
    };
    for (const said of ['1', 'true', 'YES', 'on']) assert(of({ COMITY_TLS: said }));
    for (const said of ['0', 'false', 'No', 'OFF']) assert.equal(of({ COMITY_TLS: said, COMITY_TLS_CA: file }), undefined);
    assert.throws(() => of({ COMITY_TLS: 'maybe' }), /^RangeError: COMITY_TLS is 1 or 0, not 'maybe'$/);
    assert.equal(String(of({ COMITY_TLS_CA: file })?.ca), PEM);
    assert.equal(String(of({ COMITY_TLS_CA: file, COMITY_TLS: '0' }, true)?.ca), PEM);
    assert.equal(of({ COMITY_TLS_CA: file }, false), undefined);
    assert.equal(of({ COMITY_TLS_CA: file }, { serverName: 'db' })?.ca, undefined);
    assert.equal(of({ COMITY_TLS_SERVER_NAME: 'db' })?.serverName, 'db');
    assert.throws(() => of({ COMITY_TLS_CA: join(folder, 'none') }), { code: 'ENOENT' });
    assert.throws(() => of({ COMITY_TLS_CLIENT_CERT: file }), TypeError); // without its key
    assert.throws(() => of({}, { ca: file }), /is not PEM/);
    assert.throws(() => of({}, { serverName: 'two words' }), RangeError);
    assert.throws(() => of({}, 'yes' as never), TypeError);
    assert.throws(() => of({}, { ca: 1 as never }), TypeError);
    assert.equal(String(of({}, { caFile: file })?.ca), PEM);
    assert.throws(() => of({}, { caFile: file, ca: PEM }), /^TypeError: tls takes either ca or caFile$/);
    assert.throws(() => of({}, { caFile: 1 as never }), /^TypeError: tls.caFile must be a path, not number$/);
    assert.throws(() => of({}, { caFile: '' }), /^RangeError: tls.caFile must be a path/);
    assert.throws(() => of({}, { caFile: folder }), /^RangeError: tls.caFile: .* is no file$/);
    assert.throws(() => of({}, { certFile: file }), TypeError); // without its key
    assert.throws(() => of({}, { caFile: '/dev/zero' }), /is no file/);
    writeFileSync(file, Buffer.alloc(2 ** 20 + 1));
    assert.throws(() => of({}, { caFile: file }), /is larger than 1048576 bytes$/);
    writeFileSync(file, 'nothing of the kind');
    assert.throws(() => of({}, { caFile: file }), /is not PEM/);
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

test('files of certificates are read again, and what cannot be used leaves what was there before', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'comity-'));
  try {
    const caFile = join(folder, 'ca');
    writeFileSync(caFile, PEM);
    const { certificates } = access({ tls: { caFile } }, {});
    assert(certificates);
    const { material, credentials } = certificates;
    assert.equal(certificates.credentials, credentials);
    const warned = once(process, 'warning');
    writeFileSync(caFile, 'half of it');
    assert.equal(certificates.credentials, credentials);
    assert.match(String((await warned)[0]), /^ComityWarning: certificates are not renewed: .*is not PEM/);
    rmSync(caFile);
    assert.equal(certificates.material, material);
    writeFileSync(caFile, `${PEM}\n`);
    assert.equal(String(certificates.material.ca), `${PEM}\n`);
    assert.notEqual(certificates.credentials, credentials);
  } finally {
    rmSync(folder, { recursive: true });
  }
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
