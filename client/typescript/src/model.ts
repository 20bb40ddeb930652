/** What the client answers with: entries, events, results. Whole numbers of the contract are bigints. */

import { timestampDate } from '@bufbuild/protobuf/wkt';
import type { Timestamp } from '@bufbuild/protobuf/wkt';

import { decode } from './codec.ts';
import type { Checkpoint as CheckpointMessage } from './gen/comity/v1/checkpoint_pb.ts';
import type { Difference as DifferenceMessage } from './gen/comity/v1/checkpoint_pb.ts';
import type { Lease as LeaseMessage } from './gen/comity/v1/lease_pb.ts';
import type { Namespace as NamespaceMessage } from './gen/comity/v1/namespace_pb.ts';
import { EventCause, EventType } from './gen/comity/v1/types_pb.ts';
import type { Commit as CommitMessage, Entry as EntryMessage } from './gen/comity/v1/types_pb.ts';
import { milliseconds } from './status.ts';

/** The value of a key, as one revision has it. */
export class Entry<T = unknown> {
  readonly key: string;
  /** The value as it is stored; empty where only keys were asked for. */
  readonly data: Uint8Array;
  /** Empty: not said. */
  readonly contentType: string;
  /** 1n at creation, one more with each overwrite, 1n again after a delete. */
  readonly version: bigint;
  readonly createRevision: bigint;
  /** The revision that wrote this value. */
  readonly modRevision: bigint;
  /** 0n: lives by no lease. */
  readonly leaseId: bigint;
  /** By the clock of the store. */
  readonly updateTime: Date;

  constructor(fields: Omit<Entry, 'value'>) {
    this.key = fields.key;
    this.data = fields.data;
    this.contentType = fields.contentType;
    this.version = fields.version;
    this.createRevision = fields.createRevision;
    this.modRevision = fields.modRevision;
    this.leaseId = fields.leaseId;
    this.updateTime = fields.updateTime;
  }

  /** The value by its content type: JSON is parsed, text becomes a string, all else is bytes. Throws DecodeError. */
  get value(): T {
    return decode(this.data, this.contentType, this.key) as T;
  }
}

/** One change of one key, with what is known of the commit that made it. */
export interface Event<T = unknown> {
  readonly type: 'put' | 'delete';
  readonly key: string;
  /** As the commit left it. Of a delete: the key, modRevision and updateTime; all else is empty. */
  readonly entry: Entry<T>;
  /** Only on request, and where there was one. */
  readonly previous: Entry<T> | undefined;
  /** Who did it: a client, or the end of the lease that the key lived by. */
  readonly cause: 'client' | 'lease-expiry' | undefined;
  /** The revision of the commit. */
  readonly revision: bigint;
  readonly time: Date;
  /** Empty: not said. So are the other two. */
  readonly author: string;
  readonly message: string;
  readonly traceParent: string;
}

/**
 * The whole present state of what a watch watches; it goes on from there. Comes where the watch could not go on where it
 * was, and at its start if that was asked for. A key that is not among the entries does not exist.
 */
export interface Resync<T = unknown> {
  readonly type: 'resync';
  readonly revision: bigint;
  /** Of the history that `revision` is of. */
  readonly epoch: string;
  /** In the order of keys. */
  readonly entries: readonly Entry<T>[];
}

/** One transaction that changed something: the step from one revision to the next. */
export interface Commit {
  readonly revision: bigint;
  readonly time: Date;
  readonly author: string;
  readonly message: string;
  readonly traceParent: string;
  /** Those that pass the filters; at most one a key. */
  readonly events: readonly Event[];
}

/** What a put did. */
export interface PutResult {
  readonly revision: bigint;
  readonly version: bigint;
  readonly previous: Entry | undefined;
  /** The lease that the key lives by: of a put with a ttl its own. 0n: none. */
  readonly leaseId: bigint;
}

/** What a delete did. Without anything to delete the revision is the newest one. */
export interface DeleteResult {
  readonly revision: bigint;
  readonly deleted: bigint;
  /** Only on request, in the order of keys. */
  readonly previous: readonly Entry[];
  /** Some are left out of `previous` for their size. */
  readonly previousTruncated: boolean;
}

/** What an increment did. */
export interface IncrementResult {
  readonly revision: bigint;
  readonly value: bigint;
  readonly version: bigint;
}

/** Who wrote a key last, and why. */
export interface Attribution {
  /** Without its value. */
  readonly entry: Entry;
  readonly author: string;
  readonly message: string;
  readonly traceParent: string;
}

/** A name for a revision, which keeps it readable. Wherever a revision is asked for, it stands for its name. */
export interface Checkpoint {
  readonly name: string;
  readonly revision: bigint;
  readonly createTime: Date;
  readonly author: string;
  readonly message: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly keyCount: bigint;
  readonly sizeBytes: bigint;
}

/** A key that differs between two revisions in its value or content type, or in being there at all. */
export interface Difference {
  readonly key: string;
  /** At the older revision; undefined: it was absent. */
  readonly before: Entry | undefined;
  /** At the newer one; undefined: it is absent. */
  readonly after: Entry | undefined;
}

/** What a restore did, or would do. */
export interface RestoreResult {
  readonly revision: bigint;
  readonly put: bigint;
  readonly deleted: bigint;
  /** Of a dry run: what would change, up to 1,000 keys, without values. */
  readonly differences: readonly Difference[];
}

/** A key that both sides changed since the fork, to different ends. undefined: it is, or was, absent there. */
export interface MergeConflict {
  readonly key: string;
  readonly base: Entry | undefined;
  readonly ours: Entry | undefined;
  readonly theirs: Entry | undefined;
  readonly valuesOmitted: boolean;
}

/** How a merge ended, or would end. */
export interface MergeResult {
  /** It was applied, or there was nothing to apply. False: there were conflicts, or it was a dry run. */
  readonly merged: boolean;
  readonly revision: bigint;
  readonly put: bigint;
  readonly deleted: bigint;
  /** In the order of keys, up to 1,000. */
  readonly conflicts: readonly MergeConflict[];
  readonly conflictCount: bigint;
}

/** What is known of a namespace. */
export interface NamespaceInfo {
  readonly name: string;
  readonly revision: bigint;
  readonly floor: bigint;
  readonly keyCount: bigint;
  readonly sizeBytes: bigint;
  readonly commitCount: bigint;
  readonly historySizeBytes: bigint;
  readonly createTime: Date;
  readonly updateTime: Date;
  /** Another one whenever revisions may have been given out anew. */
  readonly epoch: string;
  /** The namespace that it was forked from; empty: none. */
  readonly parent: string;
  readonly forkRevision: bigint;
}

/** What the server knows of a lease. */
export interface LeaseInfo {
  readonly id: bigint;
  readonly ttlMs: number;
  readonly expireTime: Date;
  readonly author: string;
  readonly keyCount: bigint;
  readonly fence: bigint;
  /** 0: it has run out, and is about to end. */
  readonly remainingMs: number;
  readonly endsWithKeys: boolean;
}

const NEVER = new Date(0);

function date(timestamp: Timestamp | undefined): Date {
  return timestamp ? timestampDate(timestamp) : NEVER;
}

export function entry(message: EntryMessage): Entry {
  return new Entry({ ...message, data: message.value, updateTime: date(message.updateTime) });
}

export function maybeEntry(message: EntryMessage | undefined): Entry | undefined {
  return message && entry(message);
}

/** An entry that a transaction has written and that is not there yet. */
export function pending(key: string, data: Uint8Array, contentType: string, leaseId: bigint): Entry {
  return new Entry({
    key,
    data,
    contentType,
    version: 0n,
    createRevision: 0n,
    modRevision: 0n,
    leaseId,
    updateTime: NEVER,
  });
}

export function commit(message: CommitMessage): Commit {
  const { revision, author, message: why, traceParent } = message;
  const said = { revision, time: date(message.commitTime), author, message: why, traceParent };
  const events = message.events.flatMap(({ type, entry: left, previous, cause }): Event[] => {
    if (!left) return [];
    const causes = { [EventCause.CLIENT]: 'client', [EventCause.LEASE_EXPIRY]: 'lease-expiry' } as const;
    return [
      {
        ...said,
        type: type === EventType.DELETE ? 'delete' : 'put',
        key: left.key,
        entry: entry(left),
        previous: maybeEntry(previous),
        cause: (causes as Record<number, 'client' | 'lease-expiry' | undefined>)[cause],
      },
    ];
  });
  return { ...said, events };
}

export function checkpoint(message: CheckpointMessage): Checkpoint {
  const { name, revision, author, message: why, labels, keyCount, sizeBytes } = message;
  return { name, revision, createTime: date(message.createTime), author, message: why, labels, keyCount, sizeBytes };
}

export function difference(message: DifferenceMessage): Difference {
  return { key: message.key, before: maybeEntry(message.before), after: maybeEntry(message.after) };
}

export function namespaceInfo(message: NamespaceMessage): NamespaceInfo {
  const { $typeName: _, $unknown: __, ...fields } = message;
  return { ...fields, createTime: date(message.createTime), updateTime: date(message.updateTime) };
}

export function leaseInfo(message: LeaseMessage): LeaseInfo {
  const { id, author, keyCount, fence, endsWithKeys } = message;
  return {
    id,
    ttlMs: message.ttl ? milliseconds(message.ttl) : 0,
    expireTime: date(message.expireTime),
    author,
    keyCount,
    fence,
    remainingMs: message.remaining ? milliseconds(message.remaining) : 0,
    endsWithKeys,
  };
}
