/** The writes of a transaction function, folded so that a key is written once, and seen by its later reads. No I/O. */

import { decode, encode, JSON_TYPE } from './codec.ts';
import { FailedPrecondition } from './errors.ts';
import type { Entry } from './model.ts';
import { pending } from './model.ts';
import type { Operation } from './operations.ts';

const MAX_NUMBER = 2n ** 53n - 1n;

type Write =
  | { kind: 'put'; data: Uint8Array; contentType: string; leaseId: bigint; ttlMs: number | undefined }
  | { kind: 'delete' }
  | { kind: 'increment'; by: bigint };

/**
 * What a function has written up to now. A put or an increment of a key that a prefix delete took before cannot be sent as
 * the two of them, since a transaction writes a key once: `overlapping` names such prefixes, to be deleted key by key.
 */
export class Writes {
  #keys = new Map<string, Write>();
  #prefixes = new Set<string>(); // deleted; none begins with another

  get empty(): boolean {
    return this.#keys.size === 0 && this.#prefixes.size === 0;
  }

  // Encoded now: the function may change the value later on, and should hear of an error where it made it.
  put(key: string, value: unknown, contentType: string | undefined, leaseId: bigint, ttlMs: number | undefined): void {
    const encoded = encode(value, contentType);
    this.#set(key, { kind: 'put', data: encoded.value, contentType: encoded.contentType, leaseId, ttlMs });
  }

  delete(key: string): void {
    if (this.#deleted(key)) this.#keys.delete(key);
    else this.#set(key, { kind: 'delete' });
  }

  deletePrefix(prefix: string): void {
    for (const key of this.#keys.keys()) if (key.startsWith(prefix)) this.#keys.delete(key);
    if (this.#deleted(prefix)) return;
    for (const known of this.#prefixes) if (known.startsWith(prefix)) this.#prefixes.delete(known);
    this.#prefixes.add(prefix);
  }

  increment(key: string, by: bigint): void {
    const before = this.#keys.get(key);
    if (before?.kind === 'increment') {
      this.#set(key, { kind: 'increment', by: sum(key, before.by, by) });
    } else if (before?.kind === 'put') {
      this.#set(key, { ...before, ...number(sum(key, whole(key, before.data), by)) });
    } else if (before?.kind === 'delete' || this.#deleted(key)) {
      this.#set(key, { kind: 'put', ...number(sum(key, 0n, by)), leaseId: 0n, ttlMs: undefined });
    } else {
      this.#set(key, { kind: 'increment', by });
    }
  }

  /** Whether the entry of the key depends on these writes alone, so that it need not be read. */
  decides(key: string): boolean {
    const write = this.#keys.get(key);
    return write ? write.kind !== 'increment' : this.#deleted(key);
  }

  /** The key's entry as these writes leave it. One that is written here has no version, revision and time. */
  entry(key: string, stored: Entry | undefined): Entry | undefined {
    const write = this.#keys.get(key);
    switch (write?.kind) {
      case 'put':
        return pending(key, write.data, write.contentType, write.leaseId);
      case 'delete':
        return undefined;
      case 'increment': {
        const { data, contentType } = number(sum(key, stored ? whole(key, stored.data) : 0n, write.by));
        return pending(key, data, contentType, stored?.leaseId ?? 0n);
      }
      default:
        return this.#deleted(key) ? undefined : stored;
    }
  }

  /** The entries under a prefix as these writes leave them, in the order of keys. */
  entries(prefix: string, stored: readonly Entry[]): Entry[] {
    const found = new Map(stored.map((each) => [each.key, each]));
    const written = [...this.#keys.keys()].filter((key) => key.startsWith(prefix));
    return inOrder(new Set([...found.keys(), ...written])).flatMap((key) => this.entry(key, found.get(key)) ?? []);
  }

  /** The deleted prefixes under which something was written afterwards. */
  overlapping(): string[] {
    return [...this.#prefixes].filter((prefix) => [...this.#keys.keys()].some((key) => key.startsWith(prefix)));
  }

  /** The writes as operations. `stored` are the entries under the overlapping prefixes. */
  operations(stored: readonly Entry[]): Operation[] {
    const overlapping = this.overlapping();
    const gone = inOrder(new Set(stored.map(({ key }) => key))).filter((key) => !this.#keys.has(key));
    return [
      ...[...this.#prefixes]
        .filter((prefix) => !overlapping.includes(prefix))
        .map((prefix) => ({ deletePrefix: prefix })),
      ...gone.map((key) => ({ delete: key })),
      ...[...this.#keys].map(([key, write]): Operation => {
        if (write.kind === 'delete') return { delete: key };
        if (write.kind === 'increment') return { increment: key, by: write.by };
        const { data, contentType, leaseId, ttlMs } = write;
        return {
          put: key,
          value: data,
          contentType,
          ...(leaseId ? { lease: leaseId } : {}),
          ...(ttlMs === undefined ? {} : { ttlMs }),
        };
      }),
    ];
  }

  #deleted(key: string): boolean {
    for (const prefix of this.#prefixes) if (key.startsWith(prefix)) return true;
    return false;
  }

  #set(key: string, write: Write): void {
    this.#keys.delete(key); // so that it moves to the end: the events of a commit have this order
    this.#keys.set(key, write);
  }
}

/** Keys in the order of their UTF-8 bytes, which is that of the server. */
function inOrder(keys: Iterable<string>): string[] {
  return [...keys]
    .map((key) => Buffer.from(key))
    .sort(Buffer.compare)
    .map(String);
}

function number(value: bigint) {
  return { data: new TextEncoder().encode(String(value)), contentType: JSON_TYPE };
}

function whole(key: string, data: Uint8Array): bigint {
  const text = decode(data, 'text/plain', key) as string;
  if (!/^-?(0|[1-9][0-9]{0,15})$/.test(text)) throw notANumber(key, 'what it holds is no whole number');
  return sum(key, BigInt(text), 0n);
}

function sum(key: string, value: bigint, by: bigint): bigint {
  const total = value + by;
  if (total > MAX_NUMBER || total < -MAX_NUMBER) throw notANumber(key, `${total} is outside of -(2^53-1) to 2^53-1`);
  return total;
}

function notANumber(key: string, why: string): FailedPrecondition {
  return new FailedPrecondition(`'${key}' cannot be incremented: ${why}`, {
    reason: 'NOT_A_NUMBER',
    metadata: { key },
  });
}
