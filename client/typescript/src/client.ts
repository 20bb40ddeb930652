/** The client: reads, writes, transactions, watches and history of one namespace. */

import { duration, int, text } from './arguments.ts';
import type { Int } from './arguments.ts';
import { pageSize } from './base.ts';
import * as wire from './gen/comity/v1/state_pb.ts';
import { EventType } from './gen/comity/v1/types_pb.ts';
import { guardOf } from './guards.ts';
import * as model from './model.ts';
import type { Entry } from './model.ts';
import { Namespaces } from './namespaces.ts';
import { condition, operation, putFields, transactionResult } from './operations.ts';
import type { Condition, Operation, TransactionResult } from './operations.ts';
import type {
  CallOptions,
  DeleteOptions,
  HistoryOptions,
  IfOptions,
  ListOptions,
  PutOptions,
  Transact,
  TransactOptions,
  WatchOptions,
  WriteOptions,
} from './options.ts';
import { EntryListing, Listing, Pages } from './pages.ts';
import type { Reading } from './snapshot.ts';
import { run } from './transaction.ts';
import type { Transaction } from './transaction.ts';
import { Watch } from './watch.ts';

const PROGRESS_MS = 10_000;
const { method } = wire.StateService;

/**
 * Shared state in one namespace of a server. Made by `connect`.
 *
 * Calls are made again while the server cannot be reached; a write carries a request id, so that it is applied once. Every
 * method rejects with errors of the tree in errors.ts; arguments that do not fit are TypeError and RangeError.
 */
export class Client extends Namespaces {
  // Reads

  /** The entry of a key, now or at an earlier revision; undefined if it is absent. */
  async get<T = unknown>(key: string, options: CallOptions & { revision?: Int | undefined } = {}) {
    const { found } = await this.#get(key, int('revision', options.revision ?? 0), options);
    return found as Entry<T> | undefined;
  }

  /** The entries under a prefix, in the order of keys, all at one revision. */
  list<T = unknown>(prefix = '', options: ListOptions = {}): EntryListing<Entry<T>> {
    const read = this.#list(prefix, options);
    return new EntryListing(async function* () {
      for await (const { revision, epoch, entries } of read()) {
        yield { revision, epoch, found: entries.map(model.entry) as Entry<T>[] };
      }
    });
  }

  /** The commits between two revisions, the newest first. */
  history(prefix = '', options: HistoryOptions = {}): Pages<model.Commit> {
    const request = {
      namespace: this.namespace,
      prefix: text('prefix', prefix),
      author: text('author', options.author ?? ''),
      fromRevision: int('from', options.from ?? 0),
      toRevision: int('to', options.to ?? 0),
      order: options.oldestFirst ? wire.HistoryOrder.OLDEST_FIRST : wire.HistoryOrder.NEWEST_FIRST,
      pageSize: pageSize(options.pageSize),
      keysOnly: options.keysOnly ?? false,
      previous: options.previous ?? false,
    };
    const read = this.pages(method.history, (pageToken) => ({ ...request, pageToken }), options);
    return new Pages(async function* () {
      let parts: model.Event[] = []; // of a commit that is too large for one page
      for await (const page of read()) {
        const whole: model.Commit[] = [];
        for (const message of page.commits) {
          const commit = model.commit(message);
          const events = [...parts, ...commit.events];
          parts = message.partial ? events : [];
          if (!message.partial) whole.push({ ...commit, events });
        }
        yield whole;
      }
    });
  }

  /** Who wrote each key under a prefix last, when and why; also of commits that the history has no more. */
  blame(prefix = '', options: Omit<ListOptions, 'keysOnly'> = {}): Listing<model.Attribution> {
    const request = {
      namespace: this.namespace,
      prefix: text('prefix', prefix),
      revision: int('revision', options.revision ?? 0),
      pageSize: pageSize(options.pageSize),
    };
    const read = this.pages(method.blame, (pageToken) => ({ ...request, pageToken }), options);
    return new Listing(async function* () {
      for await (const { revision, attributions } of read()) {
        const found = attributions.flatMap(({ entry, author, message, traceParent }) =>
          entry ? [{ entry: model.entry(entry), author, message, traceParent }] : [],
        );
        yield { revision, found };
      }
    });
  }

  /**
   * The changes of a key or under a prefix, as they happen: in order, without gaps, each once, over reconnects and restarts
   * of the server. What it does where the history that it needs is gone, `Watch` says.
   */
  watch<T = unknown>(options: WatchOptions): Watch<T> {
    const { key, prefix, progressMs = PROGRESS_MS, initial = false, only } = options;
    if ((key === undefined) === (prefix === undefined)) throw new TypeError('a watch takes either a key or a prefix');
    const fromRevision = int('from', options.from ?? 0);
    if (fromRevision < 0n) throw new RangeError('from is a revision, and not below 0');
    if (initial && fromRevision) throw new TypeError('a watch takes either initial or from');
    const epoch = text('epoch', options.epoch ?? '');
    if (epoch && !fromRevision) throw new TypeError('the epoch of a watch goes with from');
    if (only !== undefined && only !== 'put' && only !== 'delete') throw new RangeError("only is 'put' or 'delete'");
    if (!(progressMs >= 100)) throw new RangeError('progressMs is a number of ms from 100');
    const target =
      key === undefined
        ? ({ case: 'prefix', value: text('prefix', prefix as string) } as const)
        : ({ case: 'key', value: text('key', key) } as const);
    const timeoutMs = this.timeout(options);
    return new Watch<T>(this.shared.calls, {
      request: {
        namespace: this.namespace,
        target,
        eventTypes: only === undefined ? [] : [only === 'put' ? EventType.PUT : EventType.DELETE],
        previous: options.previous ?? false,
        progressInterval: duration('progressMs', progressMs),
      },
      fromRevision,
      epoch,
      initial,
      resync: options.resync ?? true,
      progressMs,
      timeoutMs,
      signal: options.signal,
      state: async (revision, signal) => {
        if (key === undefined) return await this.list(prefix, { revision, timeoutMs, signal }).all();
        const entry = await this.get(key, { revision, timeoutMs, signal });
        return entry ? [entry] : [];
      },
    });
  }

  // Writes

  /** Write a key: bytes as they are, everything else as JSON. Rejects with Conflict where a condition does not hold. */
  async put(key: string, value: unknown, options: PutOptions = {}): Promise<model.PutResult> {
    const answer = await this.write(
      method.put,
      { key: text('key', key), ...putFields(value, options, this.namespace), ...conditions(options) },
      options,
    );
    const { revision, version, leaseId } = answer;
    return { revision, version, previous: model.maybeEntry(answer.previous), leaseId };
  }

  /** Delete a key. That it is not there is no error. */
  delete(key: string, options: DeleteOptions = {}): Promise<model.DeleteResult> {
    return this.#delete({ case: 'key', value: text('key', key) }, options);
  }

  /**
   * Delete all keys under a prefix (the empty one: every key). ifRevision: only if nothing under it changed after this
   * revision.
   */
  deletePrefix(prefix: string, options: Omit<DeleteOptions, 'ifVersion'> = {}): Promise<model.DeleteResult> {
    return this.#delete({ case: 'prefix', value: text('prefix', prefix) }, options);
  }

  /** Add to a whole number that a key holds as JSON; an absent key counts as 0. */
  async increment(key: string, by: Int = 1, options: WriteOptions = {}): Promise<model.IncrementResult> {
    const { revision, results } = await this.transact({ ...options, then: [{ increment: key, by }] });
    const sum = results[0];
    if (sum?.type !== 'increment') throw new TypeError('the server answered an increment with something else');
    return { revision, value: sum.value, version: sum.version };
  }

  /**
   * Change several keys at once, or none of them.
   *
   * A function is called with a `Transaction`; it reads from one revision and says what to write. It is run again, after a
   * short wait, when something that it read has changed meanwhile, so it should do nothing else that lasts. What it returns
   * is returned; what it throws is thrown, and nothing is written. Once `timeoutMs` has passed since the first run it is not
   * run again: rejects with Conflict.
   *
   * Conditions and operations are sent as they are. That conditions fail is no error: the result says so, with what was
   * found instead.
   */
  transact<T>(body: (tx: Transaction) => T | Promise<T>, options?: TransactOptions): Promise<T>;
  transact(transact: Transact): Promise<TransactionResult>;
  async transact<T>(
    given: ((tx: Transaction) => T | Promise<T>) | Transact,
    options: TransactOptions = {},
  ): Promise<T | TransactionResult> {
    if (typeof given !== 'function') {
      const { conditions: must = [], then = [], otherwise = [] } = given;
      return this.#transact(must, then, otherwise, given);
    }
    const calls = { timeoutMs: this.timeout(options), signal: options.signal };
    guardOf(options.guard, this.namespace);
    const reading: Reading = {
      get: (key, revision) => this.#get(key, revision, calls),
      list: async (prefix, revision) => {
        const found: Entry[] = [];
        for await (const page of this.#list(prefix, { ...calls, revision })()) {
          revision = page.revision;
          found.push(...page.entries.map(model.entry));
        }
        return { revision, found };
      },
    };
    const apply = (must: Condition[], then: Operation[]) => this.#transact(must, then, [], { ...options, ...calls });
    const guarded = options.guard !== undefined;
    return run(reading, apply, given, this.namespace, calls.timeoutMs, guarded, options.signal);
  }

  async #get(key: string, revision: bigint, options: CallOptions) {
    const request = { key: text('key', key), revision };
    const answer = await this.read(method.get, request, options);
    return { revision: answer.revision, found: model.maybeEntry(answer.entry) };
  }

  #list(prefix: string, options: ListOptions) {
    const request = {
      namespace: this.namespace,
      prefix: text('prefix', prefix),
      revision: int('revision', options.revision ?? 0),
      pageSize: pageSize(options.pageSize),
      keysOnly: options.keysOnly ?? false,
    };
    return this.pages(method.list, (pageToken) => ({ ...request, pageToken }), options);
  }

  async #delete(
    target: { case: 'key' | 'prefix'; value: string },
    options: DeleteOptions,
  ): Promise<model.DeleteResult> {
    const { revision, deleted, previous, previousTruncated } = await this.write(
      method.delete,
      { target, returnPrevious: options.returnPrevious ?? false, ...conditions(options) },
      options,
    );
    return { revision, deleted, previous: previous.map(model.entry), previousTruncated };
  }

  async #transact(
    must: readonly Condition[],
    then: readonly Operation[],
    otherwise: readonly Operation[],
    options: WriteOptions,
  ): Promise<TransactionResult> {
    const request = {
      conditions: must.map(condition),
      then: then.map((each) => operation(each, this.namespace)),
      otherwise: otherwise.map((each) => operation(each, this.namespace)),
    };
    return transactionResult(await this.write(method.transact, request, options));
  }
}

function conditions({ ifVersion, ifRevision }: IfOptions) {
  return {
    ...(ifVersion === undefined ? {} : { ifVersion: int('ifVersion', ifVersion) }),
    ...(ifRevision === undefined ? {} : { ifRevision: int('ifRevision', ifRevision) }),
  };
}
