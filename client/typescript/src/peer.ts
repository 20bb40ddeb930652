/** A server as calls find it: where it is, and why it cannot be reached. */

import { isHere, plain } from './addresses.ts';
import type { Certificates } from './certificates.ts';
import { Unavailable } from './errors.ts';
import { refusal } from './handshake.ts';
import { now } from './retry.ts';
import { errorFrom } from './status.ts';
import { hungUp, TLS_FAILED } from './unreachable.ts';

const PATIENCE_MS = 2_000; // that a handshake may take
const AGAIN_MS = 1_000; // after one, before another
const PROXIES = ['grpc_proxy', 'https_proxy', 'http_proxy']; // as grpc-js knows them

/**
 * One target. Of one that closes connections as soon as they are made a handshake is to tell why. The errors of calls that
 * fail meanwhile do not say it yet.
 */
export class Peer {
  readonly address: string;
  readonly #certificates: Certificates | undefined;
  readonly #isSeen: boolean;
  #again = -Infinity; // when to ask anew, by `now`; NaN: it is being asked
  #why: string | undefined;

  constructor(target: string, certificates: Certificates | undefined) {
    this.address = plain(target);
    this.#certificates = certificates;
    // What goes by a proxy alone has no way of its own.
    this.#isSeen = !certificates || isHere(target) || !PROXIES.some((name) => process.env[name]);
  }

  /** The error for what a call to it failed with. */
  error(failure: unknown): unknown {
    const error = errorFrom(failure, this.address);
    if (!(error instanceof Unavailable && hungUp(error.message))) {
      this.#why = undefined;
      return error;
    }
    if (this.#isSeen && now() >= this.#again) void this.#ask();
    if (this.#why === undefined) return error;
    return new Unavailable(`cannot reach ${this.address}: ${this.#why}`, { reason: TLS_FAILED, cause: failure });
  }

  async #ask(): Promise<void> {
    this.#again = NaN;
    const place = this.address.lastIndexOf(':');
    const host = this.address.slice(0, place).replace(/^\[|\]$/g, '');
    try {
      this.#why = await refusal(host, Number(this.address.slice(place + 1)), this.#certificates, PATIENCE_MS);
    } catch {
      this.#why = undefined;
    }
    this.#again = now() + AGAIN_MS;
  }
}
