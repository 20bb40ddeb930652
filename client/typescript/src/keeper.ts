/**
 * Keeps leases alive: one stream for all leases of a client. A lease is renewed every third of its ttl; a stream that ends is
 * followed by another, perhaps to another server, on which all leases are renewed anew, and so is one that does not answer
 * for a quarter of a ttl. Whatever becomes of streams, a timer of each lease watches over its ttl.
 */

import type { ClientDuplexStream } from '@grpc/grpc-js';
import { create } from '@bufbuild/protobuf';

import type { Channels, Connection } from './channel.ts';
import { PermissionDenied, RateLimited, Unauthenticated } from './errors.ts';
import { KeepAliveRequestSchema, LeaseService } from './gen/comity/v1/lease_pb.ts';
import type { KeepAliveRequest, KeepAliveResponse } from './gen/comity/v1/lease_pb.ts';
import type { Lease } from './lease.ts';
import { Backoff, now, sleep } from './retry.ts';
import { milliseconds } from './status.ts';

const FIRST_MS = 500; // after which a lease is renewed first: then the server says unasked that it has ended
const RENEWED = 1 / 3; // of the ttl, between one renewal and the next
const PATIENCE = 1 / 4; // of the ttl, for an answer
const SHARE_OF_TTL = 1 / 8; // beyond which no lease waits for another stream

type Stream = ClientDuplexStream<KeepAliveRequest, KeepAliveResponse>;

/** A lease that is kept alive. */
interface Kept {
  readonly lease: Lease;
  sent: number | undefined; // when a renewal was sent that is not answered yet
  timer: NodeJS.Timeout | undefined;
}

export class Keeper {
  readonly #channels: Channels;
  readonly #kept = new Map<Lease, Kept>();
  #stream: Stream | undefined;
  #running = false;
  #failure: unknown; // why there is no stream

  constructor(channels: Channels) {
    this.#channels = channels;
    // Nothing is renewed any more, and each lease is lost when what it has left has passed.
    channels.closing.addEventListener('abort', () => {
      this.#stream?.cancel();
      for (const kept of this.#kept.values()) this.#set(kept, kept.lease.deadline - now());
    });
  }

  /** Keep a lease alive from now on. */
  keep(lease: Lease): void {
    const kept: Kept = { lease, sent: undefined, timer: undefined };
    this.#kept.set(lease, kept);
    const left = lease.deadline - now();
    this.#set(kept, Math.min(FIRST_MS, lease.ttlMs * RENEWED, Math.max(0, left - lease.ttlMs * RENEWED)));
  }

  /** Keep it alive no longer. */
  discard(lease: Lease): void {
    clearTimeout(this.#kept.get(lease)?.timer);
    this.#kept.delete(lease);
    if (this.#kept.size === 0) this.#stream?.cancel(); // the last one: a stream would keep the process from its end
  }

  /** The server has said of a lease that it has ended: tell whoever keeps it alive. */
  ended(namespace: string, id: bigint): void {
    for (const lease of [...this.#kept.keys()]) {
      if (lease.id === id && lease.namespace === namespace) lease.lose('the server says that it has ended');
    }
  }

  #set(kept: Kept, after: number): void {
    clearTimeout(kept.timer);
    kept.timer = setTimeout(() => this.#ring(kept), Math.max(0, Math.min(after, 2 ** 31 - 1)));
    if (this.#channels.closing.aborted) kept.timer.unref(); // nothing that a process would wait for
  }

  #ring(kept: Kept): void {
    const left = kept.lease.deadline - now();
    if (left <= 0) {
      kept.lease.lose(undefined, this.#failure);
    } else if (this.#channels.closing.aborted) {
      this.#set(kept, left);
    } else if (kept.sent === undefined || !this.#stream) {
      this.#renew(kept);
    } else {
      this.#stream.cancel(); // another way may be better: whatever stream follows has the time that is left
      this.#set(kept, left);
    }
  }

  #renew(kept: Kept): void {
    if (this.#stream) {
      this.#send(this.#stream, kept);
    } else {
      this.#await(kept);
      void this.#run();
    }
  }

  #await(kept: Kept): void {
    this.#set(kept, Math.min(kept.lease.deadline - now(), kept.lease.ttlMs * PATIENCE));
  }

  #send(stream: Stream, kept: Kept): void {
    const { namespace, id } = kept.lease;
    kept.sent = now();
    this.#await(kept); // anew, also where all are sent since one was due
    stream.write(create(KeepAliveRequestSchema, { namespace, leaseId: id }));
  }

  /** One stream after another, for as long as there are leases. */
  async #run(): Promise<void> {
    if (this.#running) return;
    this.#running = true;
    const backoff = new Backoff();
    while (this.#kept.size > 0 && !this.#channels.closing.aborted) {
      const connection = this.#channels.connection();
      let rest = 0; // ms that the server asks for
      try {
        await this.#renewing(connection, () => backoff.reset());
      } catch (error) {
        // Whatever it was: what can be done is to open another one while there is time.
        const failure = (this.#failure = connection.error(error));
        if (failure instanceof PermissionDenied) this.#deny(failure);
        else if (failure instanceof RateLimited) rest = failure.retryAfterMs ?? 0;
        else if (!(failure instanceof Unauthenticated)) this.#channels.failed(connection); // there, a new token may do
      }
      if (this.#kept.size === 0) break;
      const shortest = Math.min(...[...this.#kept.keys()].map(({ ttlMs }) => ttlMs));
      await sleep(rest + Math.min(backoff.delay(Infinity) ?? 0, shortest * SHARE_OF_TTL));
    }
    this.#running = false;
  }

  /** Renew on a stream until it ends, which throws. */
  async #renewing(connection: Connection, answered: () => void): Promise<void> {
    const deadlines = [...this.#kept.keys()].map(({ deadline }) => deadline);
    const { stream } = await connection.bidiStream(LeaseService.method.keepAlive, Math.min(...deadlines));
    stream.on('error', () => undefined); // told to who reads
    this.#stream = stream;
    try {
      for (const kept of this.#kept.values()) this.#send(stream, kept);
      if (this.#kept.size === 0) return;
      for await (const response of stream as AsyncIterable<KeepAliveResponse>) {
        answered();
        this.#failure = undefined;
        this.#receive(response);
        if (this.#kept.size === 0) return;
      }
    } finally {
      this.#stream = undefined;
      stream.cancel();
    }
  }

  /** What may not be renewed any more is lost. The others go on. */
  #deny({ metadata, message }: PermissionDenied): void {
    for (const lease of [...this.#kept.keys()]) {
      const which = metadata['lease_id'] ?? String(lease.id);
      if (lease.namespace === metadata['namespace'] && which === String(lease.id)) lease.lose(message);
    }
  }

  #receive(response: KeepAliveResponse): void {
    const left = response.ttl ? milliseconds(response.ttl) : 0;
    if (left <= 0) {
      this.ended(response.namespace, response.leaseId);
      return;
    }
    for (const kept of [...this.#kept.values()]) {
      const { lease, sent } = kept;
      if (lease.id !== response.leaseId || lease.namespace !== response.namespace || sent === undefined) continue;
      if (now() >= lease.deadline) {
        lease.lose(); // who asked meanwhile was told so
        continue;
      }
      kept.sent = undefined;
      lease.extend(sent + left);
      this.#set(kept, sent + lease.ttlMs * RENEWED - now());
    }
  }
}
