import assert from 'node:assert/strict';
import { test } from 'node:test';

import { status } from '@grpc/grpc-js';
import { create } from '@bufbuild/protobuf';
import { anyPack } from '@bufbuild/protobuf/wkt';

import { Internal, RateLimited, ResourceExhausted, Unimplemented } from '../src/index.ts';
import { ErrorInfoSchema, RetryInfoSchema } from '../src/gen/google/rpc/error_details_pb.ts';
import { Backoff } from '../src/retry.ts';
import { errorFrom, isTransient } from '../src/status.ts';
import { explained } from '../src/unreachable.ts';
import { failure } from './scripted.ts';

test('what is exhausted for a while is told from what is exhausted for good', () => {
  const info = anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { domain: 'comity', reason: 'SO_MANY' }));
  const retryDelay = { seconds: 1n, nanos: 500_000_000 };
  const retry = anyPack(RetryInfoSchema, create(RetryInfoSchema, { retryDelay }));
  const limited = errorFrom(failure(status.RESOURCE_EXHAUSTED, 'slow down', [info, retry]), 'here');
  assert(limited instanceof RateLimited && isTransient(limited));
  assert.deepEqual([limited.reason, limited.retryAfterMs, limited.code], ['SO_MANY', 1_500, 'RESOURCE_EXHAUSTED']);
  assert(new Backoff().delay(60_000, limited.retryAfterMs)! >= 1_500);
  assert.equal(new Backoff().delay(1_500, limited.retryAfterMs), undefined); // there would be no time left
  const full = errorFrom(failure(status.RESOURCE_EXHAUSTED, 'full', [info]), 'here');
  assert(full instanceof ResourceExhausted && !(full instanceof RateLimited) && !isTransient(full));
});

test('what answers and is no gRPC server is named', () => {
  const error = errorFrom(failure(status.UNIMPLEMENTED, 'Received HTTP status code 404', undefined), 'example.org:443');
  assert(error instanceof Unimplemented);
  assert.equal(
    error.message,
    'what answers at example.org:443 is no gRPC server, or a proxy that does not reach one: HTTP 404',
  );
});

test('details that are broken, or of another domain, are left out', () => {
  const other = anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { domain: 'elsewhere', reason: 'COMPACTED' }));
  for (const packed of [undefined, new Uint8Array([255, 255]), [other]]) {
    const error = errorFrom(failure(status.UNKNOWN, 'oh', packed), 'here');
    assert(error instanceof Internal);
    assert.deepEqual([error.message, error.code, error.reason, isTransient(error)], ['oh', 'UNKNOWN', '', false]);
  }
  const broken = errorFrom(failure(status.INTERNAL, 'Received RST_STREAM with code 2'), 'here');
  assert(isTransient(broken));
  const own = new TypeError('no status of gRPC');
  assert.equal(errorFrom(own, 'here'), own);
});

test('why there is no connection is said in words', () => {
  const why = (error: string) => {
    const said = explained(`No connection established. Last error: ${error}. Resolution note: `, 'h:1');
    return said && [said.reason, said.message.replace('cannot reach h:1: ', '')];
  };
  const at = '(2026-11-30T12:17:51.193Z)';
  const others = ['UNREACHABLE', 'it speaks no HTTP/2, as the port of something else may'];
  assert.deepEqual(why(`Protocol error ${at}`), others);
  assert.deepEqual(why(`connect ECONNREFUSED 127.0.0.1:1 ${at}`), ['UNREACHABLE', 'connect ECONNREFUSED 127.0.0.1:1']);
  assert.match(String(why(`Failed to connect ${at}`)), /^UNREACHABLE,it closed the connection at once/);
  assert.match(String(why('Error: error:0A00010B:SSL routines:tls_validate_record_header:wrong version number:x')), /^TLS_FAILED/);
  const unknown = explained('Name resolution failed for target dns:///h:1', 'h:1');
  assert.deepEqual(unknown, { reason: 'UNREACHABLE', message: 'cannot reach h:1: domain name not found' });
  assert.equal(explained('Received RST_STREAM with code 2', 'h:1'), undefined);
});
