/**
 * The servers that tests talk to, which whoever starts them says: COMITY_ADDRESS, which goes on, and for the tests of what
 * becomes of a client whose server ends, COMITY_TEST_CONTROL: a URL whose POST does what its path says with another one.
 *
 *     comity serve --store memory: &
 *     COMITY_ADDRESS=127.0.0.1:7171 npm test
 */

import { randomUUID } from 'node:crypto';

import { connect } from '../src/index.ts';
import type { Client, ConnectOptions } from '../src/index.ts';

const CONTROL = process.env['COMITY_TEST_CONTROL'];

/** A client for a namespace that no other test uses. */
export function client(options: ConnectOptions & { address?: string } = {}): Client {
  return connect(options.address, { namespace: `ts-${randomUUID()}`, author: 'node', ...options });
}

/** What a test needs to be run with, if it is to stop a server. */
export const stops = { skip: CONTROL ? false : 'there is no COMITY_TEST_CONTROL', timeout: 60_000 };

/** Have the server that may be stopped do something: its address. */
export async function control(what: 'start' | 'kill'): Promise<string> {
  const answer = await fetch(`${CONTROL}/${what}`, { method: 'POST' });
  if (!answer.ok) throw new Error(await answer.text());
  return answer.text();
}

/** The next of what is iterated over, which must be there. */
export async function next<T>(iterator: AsyncIterator<T, unknown>): Promise<T> {
  const { done, value } = await iterator.next();
  if (done) throw new Error('it has ended');
  return value as T;
}
