/** Transactions as they are sent: conditions, and what to do. */

import { create } from '@bufbuild/protobuf';
import type { MessageInitShape } from '@bufbuild/protobuf';

import { duration, int, shown, text } from './arguments.ts';
import type { Int } from './arguments.ts';
import { encode } from './codec.ts';
import { leaseId } from './guards.ts';
import type { OfLease } from './guards.ts';
import { ConditionSchema, Operator, OperationSchema } from './gen/comity/v1/state_pb.ts';
import type { Condition as ConditionMessage, Operation as OperationMessage } from './gen/comity/v1/state_pb.ts';
import type { TransactResponse } from './gen/comity/v1/state_pb.ts';
import { maybeEntry, entry } from './model.ts';
import type { DeleteResult, Entry, PutResult } from './model.ts';

const OPERATORS = {
  '==': Operator.EQUAL,
  '!=': Operator.NOT_EQUAL,
  '<': Operator.LESS,
  '<=': Operator.LESS_OR_EQUAL,
  '>': Operator.GREATER,
  '>=': Operator.GREATER_OR_EQUAL,
} as const;

/** How a condition compares what there is with what it names. */
export type Comparison = keyof typeof OPERATORS;

/**
 * What must hold. The numbers of an absent key are all 0. A value is compared by its bytes: those of JSON, or what
 * `contentType` says.
 */
export type Condition =
  | { key: string; exists: boolean }
  | { key: string; version: Int; is?: Comparison }
  | { key: string; modRevision: Int; is?: Comparison }
  | { key: string; createRevision: Int; is?: Comparison }
  | { key: string; value: unknown; contentType?: string; is?: Comparison }
  | { key: string; leaseId: Int; is?: '==' | '!=' }
  | { key: string; unchangedSince: Int }
  | { prefix: string; unchangedSince: Int };

/** One step of a transaction. */
export type Operation =
  | { get: string }
  | { list: string; limit?: number; keysOnly?: boolean }
  | { put: string; value: unknown; contentType?: string; lease?: OfLease; ttlMs?: number; returnPrevious?: boolean }
  | { delete: string; returnPrevious?: boolean }
  | { deletePrefix: string; returnPrevious?: boolean }
  | { increment: string; by?: Int };

/** What one operation answered. */
export type OperationResult =
  | { type: 'get'; entry: Entry | undefined }
  | { type: 'list'; entries: Entry[]; more: boolean }
  | ({ type: 'put' } & Omit<PutResult, 'revision'>)
  | ({ type: 'delete' } & Omit<DeleteResult, 'revision'>)
  | { type: 'increment'; value: bigint; version: bigint };

/** A condition that did not hold, with what was found instead. */
export interface FailedCondition {
  /** Its place in the conditions, from 0. */
  readonly index: number;
  /** Of a key: its entry; undefined if it is absent, or the condition is on a prefix. */
  readonly current: Entry | undefined;
  /** Of a prefix or of unchangedSince: the newest revision that changed something there. */
  readonly changedRevision: bigint;
  /** `current` has no value, for its size; in an answer near 4 MB no key and content type either. */
  readonly valueOmitted: boolean;
}

/** How a transaction of conditions and operations ended. */
export interface TransactionResult {
  /** True: all conditions held, and `then` was applied; false: `otherwise` was. */
  readonly committed: boolean;
  /** That it made, or the newest one that it saw if it changed nothing. */
  readonly revision: bigint;
  /** One for each operation that was applied, in order. */
  readonly results: readonly OperationResult[];
  readonly failed: readonly FailedCondition[];
  /** Of the history that `revision` is of; for a watch that goes on from there. */
  readonly epoch: string;
}

export function condition(said: Condition): ConditionMessage {
  return create(ConditionSchema, {
    target:
      'prefix' in said
        ? { case: 'prefix', value: text('prefix', said.prefix) }
        : { case: 'key', value: text('key', said.key) },
    test: test(said),
    operator: 'is' in said && said.is !== undefined ? operator(said.is) : Operator.EQUAL,
  });
}

export function operation(said: Operation, namespace: string): OperationMessage {
  return create(OperationSchema, { operation: step(said, namespace) });
}

export function transactionResult(response: TransactResponse): TransactionResult {
  return {
    committed: response.committed,
    revision: response.revision,
    results: response.results.map(({ result }): OperationResult => {
      switch (result.case) {
        case 'get':
          return { type: 'get', entry: maybeEntry(result.value.entry) };
        case 'list':
          return { type: 'list', entries: result.value.entries.map(entry), more: result.value.more };
        case 'put': {
          const { version, previous, leaseId } = result.value;
          return { type: 'put', version, previous: maybeEntry(previous), leaseId };
        }
        case 'delete': {
          const { deleted, previous, previousTruncated } = result.value;
          return { type: 'delete', deleted, previous: previous.map(entry), previousTruncated };
        }
        case 'increment':
          return { type: 'increment', value: result.value.value, version: result.value.version };
        default:
          throw new TypeError('the server answered an operation with nothing');
      }
    }),
    failed: response.failed.map(({ index, current, changedRevision, valueOmitted }) => ({
      index,
      current: maybeEntry(current),
      changedRevision,
      valueOmitted,
    })),
    epoch: response.epoch,
  };
}

function test(said: Condition): MessageInitShape<typeof ConditionSchema>['test'] & object {
  if ('exists' in said) return { case: 'exists', value: said.exists };
  if ('version' in said) return { case: 'version', value: int('version', said.version) };
  if ('modRevision' in said) return { case: 'modRevision', value: int('modRevision', said.modRevision) };
  if ('createRevision' in said) return { case: 'createRevision', value: int('createRevision', said.createRevision) };
  if ('value' in said) return { case: 'value', value: encode(said.value, said.contentType).value };
  if ('leaseId' in said) return { case: 'leaseId', value: int('leaseId', said.leaseId) };
  if ('unchangedSince' in said) return { case: 'unchangedSince', value: int('unchangedSince', said.unchangedSince) };
  throw new TypeError(
    'a condition says one of exists, version, modRevision, createRevision, value, leaseId, unchangedSince',
  );
}

function operator(is: Comparison): Operator {
  if (!Object.hasOwn(OPERATORS, is))
    throw new RangeError(`a condition compares by one of ${Object.keys(OPERATORS).join(' ')}`);
  return OPERATORS[is];
}

function step(said: Operation, namespace: string): MessageInitShape<typeof OperationSchema>['operation'] & object {
  if ('get' in said) return { case: 'get', value: { key: text('get', said.get) } };
  if ('list' in said) {
    const { limit = 0, keysOnly = false } = said;
    return {
      case: 'list',
      value: { prefix: text('list', said.list), limit: Number(int('limit', limit)), keysOnly },
    };
  }
  if ('put' in said) {
    if (!('value' in said)) throw new TypeError('a put says a value');
    const value = { key: text('put', said.put), ...putFields(said.value, said, namespace) };
    return { case: 'put', value };
  }
  if ('delete' in said || 'deletePrefix' in said) {
    const target =
      'delete' in said
        ? ({ case: 'key', value: text('delete', said.delete) } as const)
        : ({ case: 'prefix', value: text('deletePrefix', said.deletePrefix) } as const);
    return { case: 'delete', value: { target, returnPrevious: said.returnPrevious ?? false } };
  }
  if ('increment' in said) {
    return { case: 'increment', value: { key: text('increment', said.increment), delta: int('by', said.by ?? 1) } };
  }
  throw new TypeError(`an operation is one of get, list, put, delete, deletePrefix, increment, not ${shown(said)}`);
}

/** What a put is given beside its key and value. */
export interface PutFields {
  readonly contentType?: string | undefined;
  readonly lease?: OfLease | undefined;
  readonly ttlMs?: number | undefined;
  readonly returnPrevious?: boolean | undefined;
}

/** What the two requests that put have in common. */
export function putFields(value: unknown, said: PutFields, namespace: string) {
  if (said.lease !== undefined && said.ttlMs !== undefined) throw new TypeError('a put takes either a lease or ttlMs');
  return {
    ...encode(value, said.contentType === undefined ? undefined : text('contentType', said.contentType)),
    leaseId: said.lease === undefined ? 0n : leaseId(said.lease, namespace),
    ...(said.ttlMs === undefined ? {} : { ttl: duration('ttlMs', said.ttlMs) }),
    returnPrevious: said.returnPrevious ?? false,
  };
}
