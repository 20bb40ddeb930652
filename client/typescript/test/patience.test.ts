import assert from 'node:assert/strict';
import { test } from 'node:test';

import { credentials } from '@grpc/grpc-js';

import { patient } from '../src/patience.ts';

test('credentials of a grpc-js that makes connections in another way are taken as they are', () => {
  const others = credentials.createInsecure();
  Object.assign(others, { _createSecureConnector: undefined });
  assert.equal(patient(others), others);
});
