/** A lease that this process holds: whether it lives, and being told once it does not. */

import { ComityError, LeaseLost } from './errors.ts';
import type { Keeper } from './keeper.ts';
import { now } from './retry.ts';

const END_MS = 3_000;

/**
 * A lease that is kept alive until it is revoked or closed, or the client is closed. Made by `Client.lease` and
 * `Client.keepAlive`.
 *
 * It is lost when the server says that it has ended, and also when its ttl has passed since the last renewal that was
 * answered was sent: nobody can know then. It never comes back. `await using` revokes it at the end of the block.
 */
export class Lease implements AsyncDisposable {
  readonly namespace: string;
  readonly id: bigint;
  /** How long it lives after each renewal. */
  readonly ttlMs: number;
  readonly #keeper: Keeper;
  readonly #revoke: (timeoutMs?: number) => Promise<void>;
  readonly #ended = new AbortController();
  #deadline: number;
  #revoked = false;

  constructor(
    namespace: string,
    id: bigint,
    ttlMs: number,
    deadline: number,
    keeper: Keeper,
    revoke: (timeoutMs?: number) => Promise<void>,
  ) {
    this.namespace = namespace;
    this.id = id;
    this.ttlMs = ttlMs;
    this.#deadline = deadline;
    this.#keeper = keeper;
    this.#revoke = revoke;
  }

  /** Its fencing token, which is its id: greater than that of every lease of the namespace before it. */
  get fence(): bigint {
    return this.id;
  }

  /** What ties a write to it, as the lease itself does; for another process. */
  get guard(): { leaseId: bigint; fence: bigint } {
    return { leaseId: this.id, fence: this.fence };
  }

  /** Fires, with LeaseLost, when the lease is lost. Not when it is revoked or closed. */
  get signal(): AbortSignal {
    return this.#ended.signal;
  }

  /** False as soon as it is known to be lost, or must be assumed to be; and once it was revoked. */
  get alive(): boolean {
    return this.remainingMs > 0;
  }

  /** How long it lives unless renewed, by the clock of this process: never more than it has at the server. */
  get remainingMs(): number {
    return this.#revoked || this.#ended.signal.aborted ? 0 : Math.max(0, this.#deadline - now());
  }

  /** Throws LeaseLost unless it is alive. */
  check(): void {
    if (this.alive) return;
    if (this.#revoked) throw this.#error('it was revoked here');
    this.lose();
    throw this.signal.reason;
  }

  /** End it now, and delete its keys. That it has ended already is no error, so that it can be called again. */
  async revoke(): Promise<void> {
    this.#revoked = true;
    this.#keeper.discard(this);
    await this.#revoke();
  }

  /** Keep it alive no longer, without revoking it: it lives for as long as it has left. */
  close(): void {
    this.#keeper.discard(this);
  }

  /** Revoke it, but wait no more than three seconds for a server that is gone: it then ends by itself. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.alive) return;
    this.#revoked = true;
    this.#keeper.discard(this);
    await this.#revoke(END_MS).catch((error: unknown) => {
      if (!(error instanceof ComityError)) throw error;
    });
  }

  // For the keeper

  /** When it must be taken for lost, by `now`. */
  get deadline(): number {
    return this.#deadline;
  }

  extend(deadline: number): void {
    this.#deadline = Math.max(this.#deadline, deadline);
  }

  /** It is lost: tell who wants to know. */
  lose(why?: string, cause?: unknown): void {
    this.#keeper.discard(this);
    if (this.#revoked || this.#ended.signal.aborted) return;
    const silence = `no renewal was answered within its ttl of ${this.ttlMs} ms, so that it must be taken for lost`;
    this.#ended.abort(this.#error(why ?? silence, cause));
  }

  #error(why: string, cause?: unknown): LeaseLost {
    return new LeaseLost(`lease ${this.id} is held no longer: ${why}`, {
      reason: 'LEASE_LOST',
      metadata: { lease_id: String(this.id), namespace: this.namespace },
      cause,
    });
  }
}
