/** What a transaction function has read: the state at one revision, as far as it was asked for. */

import { OutOfRange } from './errors.ts';
import type { Entry } from './model.ts';
import type { Condition, TransactionResult } from './operations.ts';

/** How a snapshot reads: at a revision, 0n being the newest. */
export interface Reading {
  get(key: string, revision: bigint): Promise<{ revision: bigint; found: Entry | undefined }>;
  list(prefix: string, revision: bigint): Promise<{ revision: bigint; found: readonly Entry[] }>;
}

/** The state at the revision of the first read. */
export class Snapshot {
  /** The error of a read that found the revision compacted: what was read is then not the whole state. */
  gone: OutOfRange | undefined;
  readonly #reading: Reading;
  #revision: Promise<bigint> | undefined;
  readonly #entries = new Map<string, Promise<Entry | undefined>>();
  readonly #lists = new Map<string, Promise<readonly Entry[]>>();
  // What is known of this revision without a read, and becomes a condition only once it is asked for.
  readonly #knownEntries = new Map<string, Entry | undefined>();
  readonly #knownLists = new Map<string, readonly Entry[]>();

  constructor(reading: Reading, revision?: bigint) {
    this.#reading = reading;
    if (revision !== undefined) this.#revision = Promise.resolve(revision);
  }

  async get(key: string): Promise<Entry | undefined> {
    for (const [prefix, listed] of this.#lists) {
      if (key.startsWith(prefix)) return (await listed).find((each) => each.key === key);
    }
    let reading = this.#entries.get(key);
    if (!reading) {
      reading = this.#knownEntries.has(key)
        ? Promise.resolve(this.#knownEntries.get(key))
        : this.#read((revision) => this.#reading.get(key, revision), undefined);
      this.#entries.set(key, reading);
    }
    return reading;
  }

  async list(prefix: string): Promise<readonly Entry[]> {
    let reading = this.#lists.get(prefix);
    if (!reading) {
      const known = this.#knownLists.get(prefix);
      reading = known ? Promise.resolve(known) : this.#read((revision) => this.#reading.list(prefix, revision), []);
      this.#lists.set(prefix, reading);
    }
    return reading;
  }

  /** What must hold so that all that was read is still so: keys first, then prefixes, in the order of reading. */
  async conditions(): Promise<Condition[]> {
    if (this.#revision === undefined) return [];
    const unchangedSince = await this.#revision;
    const keys = [...this.#entries].map(async ([key, entry]) => ({
      key,
      modRevision: (await entry)?.modRevision ?? 0n,
    }));
    return [...(await Promise.all(keys)), ...[...this.#lists.keys()].map((prefix) => ({ prefix, unchangedSince }))];
  }

  /**
   * The snapshot at the revision at which a transaction with these conditions failed. The answer has the entries of the
   * conditions that failed, and what the others are about is as it was: so the next run of the function reads nothing that
   * the last one has read.
   */
  async moved(result: TransactionResult): Promise<Snapshot> {
    const moved = new Snapshot(this.#reading, result.revision);
    const failed = new Map(result.failed.map((each) => [each.index, each]));
    let index = 0;
    for (const [key, entry] of this.#entries) {
      const found = failed.get(index++);
      if (!found) moved.#knownEntries.set(key, await entry);
      else if (!found.valueOmitted) moved.#knownEntries.set(key, found.current);
    }
    for (const [prefix, entries] of this.#lists) {
      if (!failed.has(index++)) moved.#knownLists.set(prefix, await entries);
    }
    return moved;
  }

  async #read<T>(read: (revision: bigint) => Promise<{ revision: bigint; found: T }>, empty: T): Promise<T> {
    try {
      if (this.#revision === undefined) {
        // Of reads that begin together, the others wait for the revision of the first.
        const first = read(0n);
        this.#revision = first.then(({ revision }) => revision);
        this.#revision.catch(() => undefined); // told to who reads first, and there may be no other
        return (await first).found;
      }
      const revision = await this.#revision;
      // To the server 0 would mean the newest; here it is the empty state.
      return revision === 0n ? empty : (await read(revision)).found;
    } catch (error) {
      if (error instanceof OutOfRange) this.gone = error;
      throw error;
    }
  }
}
