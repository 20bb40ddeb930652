/** What callers may say. */

import type { Int } from './arguments.ts';
import type { Guard } from './guards.ts';
import type { Checkpoint } from './model.ts';
import type { Condition, Operation, PutFields } from './operations.ts';
import type { RequestId } from './requestIds.ts';

/** What may be said with any call. */
export interface CallOptions {
  /** How long it may take, retries included, in ms; the client's unless given. */
  readonly timeoutMs?: number | undefined;
  /** Gives the call up: it rejects with the signal's reason. A write may have been applied all the same. */
  readonly signal?: AbortSignal | undefined;
}

/** What a client may be made different in. */
export interface ClientOptions {
  readonly namespace?: string | undefined;
  readonly author?: string | undefined;
  readonly timeoutMs?: number | undefined;
}

/** A revision by its number, by the name of a checkpoint, or by the checkpoint itself, which stands for its name. */
export type Ref = Int | string | Checkpoint;

/** What may be said with any write. */
export interface WriteOptions extends CallOptions {
  /** Why, for the history. */
  readonly message?: string | undefined;
  /** Write only while this lease lives. Rejects with LeaseLost. */
  readonly guard?: Guard | undefined;
  /** Instead of the client's own, to repeat a write that another process may have made. */
  readonly requestId?: RequestId | undefined;
}

/** Conditions on a key: 0 is "only if it does not exist". They reject with Conflict. */
export interface IfOptions {
  readonly ifVersion?: Int | undefined;
  readonly ifRevision?: Int | undefined;
}

export interface PutOptions extends WriteOptions, IfOptions, PutFields {}

export interface DeleteOptions extends WriteOptions, IfOptions {
  /** Answer with the entries that were deleted, up to 1 MiB of them. */
  readonly returnPrevious?: boolean | undefined;
}

export interface ListOptions extends CallOptions {
  /** 0, or undefined: the newest when the first page is read. */
  readonly revision?: Int | undefined;
  /** The most that a call to the server brings; 0 is the server's choice. */
  readonly pageSize?: number | undefined;
  /** Leave the values out. */
  readonly keysOnly?: boolean | undefined;
}

export interface HistoryOptions extends CallOptions {
  /** Only commits of this author. */
  readonly author?: string | undefined;
  /** The oldest and the newest revision to show; 0 is the oldest kept, and the newest there is. */
  readonly from?: Int | undefined;
  readonly to?: Int | undefined;
  readonly oldestFirst?: boolean | undefined;
  readonly pageSize?: number | undefined;
  readonly keysOnly?: boolean | undefined;
  /** With the entry before each event. */
  readonly previous?: boolean | undefined;
}

export interface WatchOptions {
  /** What to watch: one key, or all keys under a prefix (the empty one: every key). */
  readonly key?: string | undefined;
  readonly prefix?: string | undefined;
  /** The first revision to see; 0, or undefined: what follows from now on. */
  readonly from?: Int | undefined;
  /** Of the history that `from` is of, as it was said along with it. Another one is a history that is gone. Not checked if
   * it is undefined or empty. */
  readonly epoch?: string | undefined;
  /** Begin with a Resync, the whole present state, and go on from there. Not with `from`. */
  readonly initial?: boolean | undefined;
  /** Ends the watch. */
  readonly signal?: AbortSignal | undefined;
  /** Only events of this type. */
  readonly only?: 'put' | 'delete' | undefined;
  /** With the entry before each event. */
  readonly previous?: boolean | undefined;
  /** false: throw Compacted instead of a Resync. */
  readonly resync?: boolean | undefined;
  /** Between signs of life of a quiet server, at least 100 ms. A stream that was silent for three of them is opened anew. */
  readonly progressMs?: number | undefined;
  /** For how long to try to open the stream at first, and to read the state for a Resync. */
  readonly timeoutMs?: number | undefined;
}

export interface TransactOptions extends CallOptions {
  readonly message?: string | undefined;
  /** Apply only while this lease lives; also judged where nothing is written. */
  readonly guard?: Guard | undefined;
}

/** A transaction as it is sent: what must hold, what to do if all of it does, and what to do if not. */
export interface Transact extends WriteOptions {
  readonly conditions?: readonly Condition[] | undefined;
  readonly then?: readonly Operation[] | undefined;
  readonly otherwise?: readonly Operation[] | undefined;
}
