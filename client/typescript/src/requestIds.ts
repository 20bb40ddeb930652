/** Names for writes, by which a server recognises a repeat. */

import { randomUUID } from 'node:crypto';

import type { Int } from './arguments.ts';

/** The name of one write. A repeat with the same name answers what the first one answered, and applies nothing. */
export interface RequestId {
  /** A name that is this writer's own, such as a UUID; 1 to 128 bytes. */
  readonly client: string;
  /** The number of this write, from 1; never used twice for two writes of one client. */
  readonly sequence: Int;
  /** The lowest sequence whose answer the client still awaits; 0n or undefined says nothing. */
  readonly awaited?: Int | undefined;
}

/** The same with all its numbers. */
export interface Numbered extends RequestId {
  readonly sequence: bigint;
  readonly awaited: bigint;
}

/** Counts what is written under one name. */
export class Writer {
  readonly #name = randomUUID();
  readonly #inFlight = new Set<bigint>(); // in growing order, so that the first one is the lowest
  #last = 0n;

  /** Write under a new id, which counts as awaited until the end: repeats belong inside. */
  async use<T>(write: (id: () => Numbered) => Promise<T>): Promise<T> {
    const sequence = ++this.#last;
    this.#inFlight.add(sequence);
    try {
      return await write(() => ({ client: this.#name, sequence, awaited: this.#lowest() }));
    } finally {
      this.#inFlight.delete(sequence);
    }
  }

  #lowest(): bigint {
    for (const sequence of this.#inFlight) return sequence;
    return 0n;
  }
}
