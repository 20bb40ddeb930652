/** Transactions as functions: read from one revision, say what to write, run again if somebody was faster. */

import { int, text } from './arguments.ts';
import type { Int } from './arguments.ts';
import { Conflict, OutOfRange } from './errors.ts';
import { leaseId } from './guards.ts';
import type { OfLease } from './guards.ts';
import type { Entry } from './model.ts';
import type { Condition, Operation, TransactionResult } from './operations.ts';
import { Backoff, now, sleep } from './retry.ts';
import { Snapshot } from './snapshot.ts';
import type { Reading } from './snapshot.ts';
import { Writes } from './writes.ts';

/** What `Transaction.put` may be told. */
export interface TransactionPutOptions {
  readonly contentType?: string | undefined;
  /** The key lives by this lease, or the lease of this id. */
  readonly lease?: OfLease | undefined;
  /** The key lives so long unless it is written again. Keys of one transaction share one lease, and must have the same. */
  readonly ttlMs?: number | undefined;
}

/**
 * What a transaction function reads and writes with. Of use only until the function has returned.
 *
 * All reads show one revision, that of the first read, and the function's own writes. Writes are only noted; they are applied
 * together when the function has returned, if nothing that it read has changed meanwhile.
 */
export class Transaction {
  readonly #snapshot: Snapshot;
  readonly #namespace: string;
  readonly #writes: Writes;
  #ended = false;

  constructor(snapshot: Snapshot, writes: Writes, namespace: string) {
    this.#snapshot = snapshot;
    this.#writes = writes;
    this.#namespace = namespace;
  }

  /** The entry of a key; undefined if it is absent. One that the function itself has written has no version yet: 0n. */
  async get<T = unknown>(key: string): Promise<Entry<T> | undefined> {
    this.#check();
    text('key', key);
    const stored = this.#writes.decides(key) ? undefined : await this.#snapshot.get(key);
    return this.#writes.entry(key, stored) as Entry<T> | undefined;
  }

  /** All entries under a prefix, in the order of keys. Counts for one of the keys and prefixes that may be read. */
  async list<T = unknown>(prefix = ''): Promise<Entry<T>[]> {
    this.#check();
    text('prefix', prefix);
    return this.#writes.entries(prefix, await this.#snapshot.list(prefix)) as Entry<T>[];
  }

  /** Write a key. The value is encoded at once, as `Client.put` does it. */
  put(key: string, value: unknown, options: TransactionPutOptions = {}): void {
    this.#check();
    const { contentType, lease, ttlMs } = options;
    if (lease !== undefined && ttlMs !== undefined) throw new TypeError('a put takes either a lease or ttlMs');
    const id = lease === undefined ? 0n : leaseId(lease, this.#namespace);
    this.#writes.put(text('key', key), value, contentType, id, ttlMs);
  }

  /** Delete a key. That it is not there is no error. */
  delete(key: string): void {
    this.#check();
    this.#writes.delete(text('key', key));
  }

  /** Delete all keys under a prefix (the empty prefix: every key). */
  deletePrefix(prefix: string): void {
    this.#check();
    this.#writes.deletePrefix(text('prefix', prefix));
  }

  /** Add to a whole number, without reading it: so it never makes the function run again. Absent counts as 0. */
  increment(key: string, by: Int = 1): void {
    this.#check();
    this.#writes.increment(text('key', key), int('by', by));
  }

  /** No more reads and writes. */
  end(): void {
    this.#ended = true;
  }

  #check(): void {
    if (this.#ended) throw new Error('the transaction has ended: use it only inside of its function');
  }
}

/** Applies operations on conditions. */
export type Apply = (conditions: Condition[], then: Operation[]) => Promise<TransactionResult>;

/**
 * Run the function, and again while it loses against others and the time is not up.
 *
 * guarded: something is to be applied even if it writes nothing, since that is where the guard is judged.
 */
export async function run<T>(
  reading: Reading,
  apply: Apply,
  body: (tx: Transaction) => T | Promise<T>,
  namespace: string,
  timeoutMs: number,
  guarded: boolean,
  signal?: AbortSignal,
): Promise<T> {
  const deadline = now() + timeoutMs;
  const backoff = new Backoff(5, 500);
  let snapshot = new Snapshot(reading);
  for (;;) {
    let lost: unknown;
    let following = new Snapshot(reading);
    let applying = now();
    const attempted = await attempt(snapshot, body, namespace);
    if ('gone' in attempted) {
      lost = attempted.gone;
    } else {
      const { answer, conditions, operations } = attempted;
      if (operations.length === 0) {
        // A lease that lives now did so at the revision that was read, of which nothing else must hold.
        if (guarded) await apply([], []);
        return answer;
      }
      applying = now();
      try {
        const result = await apply(conditions, operations);
        if (result.committed) return answer;
        lost = conflict(conditions, result);
        following = await snapshot.moved(result);
      } catch (error) {
        if (!(error instanceof OutOfRange)) throw error;
        lost = error; // a prefix that was listed cannot be judged any more
      }
    }
    const delay = backoff.delay(deadline - now());
    if (delay === undefined) throw lost;
    // What the answer brought is newer than what a read would bring, unless the wait is longer than a call takes.
    snapshot = delay <= now() - applying ? following : new Snapshot(reading);
    await sleep(delay, signal);
  }
}

type Attempt<T> = { answer: T; conditions: Condition[]; operations: Operation[] } | { gone: OutOfRange };

async function attempt<T>(
  snapshot: Snapshot,
  body: (tx: Transaction) => T | Promise<T>,
  namespace: string,
): Promise<Attempt<T>> {
  const writes = new Writes();
  const transaction = new Transaction(snapshot, writes, namespace);
  try {
    const answer = await body(transaction);
    const replaced = (await Promise.all(writes.overlapping().map((prefix) => snapshot.list(prefix)))).flat();
    if (snapshot.gone) return { gone: snapshot.gone };
    if (writes.empty) return { answer, conditions: [], operations: [] };
    return { answer, conditions: await snapshot.conditions(), operations: writes.operations(replaced) };
  } catch (error) {
    // Whatever the function made of it: what it saw was not the whole state.
    if (snapshot.gone) return { gone: snapshot.gone };
    throw error;
  } finally {
    transaction.end();
  }
}

function conflict(conditions: readonly Condition[], result: TransactionResult): Conflict {
  const failed = result.failed[0];
  const said = failed && conditions[failed.index];
  const place = !said ? '' : 'prefix' in said ? said.prefix : said.key;
  const found: Record<string, string> =
    said && 'key' in said
      ? {
          key: said.key,
          version: String(failed?.current?.version ?? 0),
          mod_revision: String(failed?.current?.modRevision ?? 0),
        }
      : { prefix: place, changed_revision: String(failed?.changedRevision ?? 0) };
  return new Conflict(`somebody was faster, each time that this was tried: '${place}' has changed`, {
    reason: 'CONFLICT',
    metadata: { ...found, revision: String(result.revision) },
  });
}
