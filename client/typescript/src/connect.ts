/** Where a program begins. */

import { readFile } from 'node:fs/promises';
import { readFileSync } from 'node:fs';

import { Calls } from './calls.ts';
import { Channels } from './channel.ts';
import { Client } from './client.ts';
import type { Tls, Token } from './credentials.ts';
import { Keeper } from './keeper.ts';
import type { ClientOptions } from './options.ts';
import { Writer } from './requestIds.ts';

/** What may be said to `connect`. */
export interface ConnectOptions extends ClientOptions {
  /** true, or what to know the server by. Default: the COMITY_TLS variables, or plain text. */
  readonly tls?: Tls | boolean | undefined;
  /** Who calls. Default: COMITY_TOKEN, or what the file COMITY_TOKEN_FILE holds at each call. */
  readonly token?: Token | undefined;
}

const ADDRESS = '127.0.0.1:7171';
const TIMEOUT_MS = 10_000;

/**
 * A client. Nothing is connected yet: that happens with the first call.
 *
 *     using state = connect('localhost:7171', { namespace: 'research', author: 'planner' });
 *     await state.put('plan', { step: 1 });
 *
 * address: `host:port[,host:port]`; of several, one that answers. Default: COMITY_ADDRESS, or 127.0.0.1:7171. The namespace's
 * is COMITY_NAMESPACE, or "default"; the author's COMITY_AUTHOR, or nobody; timeoutMs is how long a call may take, retries
 * included, by default 10,000.
 */
export function connect(address?: string, options: ConnectOptions = {}): Client {
  const { env } = process;
  const channels = new Channels(
    address || env['COMITY_ADDRESS'] || ADDRESS,
    options.tls ?? tlsOf(env),
    options.token ?? tokenOf(env),
  );
  return new Client(
    { calls: new Calls(channels), writer: new Writer(), keeper: new Keeper(channels) },
    {
      namespace: options.namespace ?? (env['COMITY_NAMESPACE'] || 'default'),
      author: options.author ?? env['COMITY_AUTHOR'] ?? '',
      timeoutMs: options.timeoutMs ?? TIMEOUT_MS,
    },
  );
}

function tlsOf(env: NodeJS.ProcessEnv): Tls | boolean {
  const file = (name: string) => (env[name] ? readFileSync(env[name]) : undefined);
  const [ca, cert, key] = [file('COMITY_TLS_CA'), file('COMITY_TLS_CLIENT_CERT'), file('COMITY_TLS_CLIENT_KEY')];
  const serverName = env['COMITY_TLS_SERVER_NAME'] || undefined;
  return ca || cert || key || serverName ? { ca, cert, key, serverName } : env['COMITY_TLS'] === '1';
}

function tokenOf(env: NodeJS.ProcessEnv): Token | undefined {
  const path = env['COMITY_TOKEN_FILE'];
  if (env['COMITY_TOKEN'] || !path) return env['COMITY_TOKEN'] || undefined;
  return async () => (await readFile(path, 'utf8')).trim();
}
