/** Where a program begins. */

import { access } from './access.ts';
import { Calls } from './calls.ts';
import { Channels } from './channel.ts';
import { Client } from './client.ts';
import type { Tls } from './credentials.ts';
import { Keeper } from './keeper.ts';
import type { ClientOptions } from './options.ts';
import { Writer } from './requestIds.ts';
import type { Token } from './tokens.ts';

/** What may be said to `connect`. */
export interface ConnectOptions extends ClientOptions {
  /**
   * What to know the server by; true: what the COMITY_TLS variables say of that; false: plain text, to which a token is
   * trusted too. Default: what the variables say, or plain text, in which no token goes to another machine.
   */
  readonly tls?: Tls | boolean | undefined;
  /** Who calls. Default: COMITY_TOKEN, or `tokenFile` of COMITY_TOKEN_FILE. */
  readonly token?: Token | undefined;
}

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
  const channels = new Channels(access({ ...options, address }, env));
  return new Client(
    { calls: new Calls(channels), writer: new Writer(), keeper: new Keeper(channels) },
    {
      namespace: options.namespace ?? (env['COMITY_NAMESPACE'] || 'default'),
      author: options.author ?? env['COMITY_AUTHOR'] ?? '',
      timeoutMs: options.timeoutMs ?? TIMEOUT_MS,
    },
  );
}
