/** State that agents share, over a Comity server. */

import './runtime.ts';

export { connect } from './connect.ts';
export type { ConnectOptions } from './connect.ts';
export type { Int } from './arguments.ts';
export { Client } from './client.ts';
export type {
  CallOptions,
  ClientOptions,
  DeleteOptions,
  HistoryOptions,
  IfOptions,
  ListOptions,
  PutOptions,
  Ref,
  Transact,
  TransactOptions,
  WatchOptions,
  WriteOptions,
} from './options.ts';
export type { Tls } from './credentials.ts';
export * from './errors.ts';
export type { Guard, LeaseGuard, OfLease } from './guards.ts';
export { Lease } from './lease.ts';
export { Entry } from './model.ts';
export type {
  Attribution,
  Checkpoint,
  Commit,
  DeleteResult,
  Difference,
  Event,
  IncrementResult,
  LeaseInfo,
  MergeConflict,
  MergeResult,
  NamespaceInfo,
  PutResult,
  RestoreResult,
  Resync,
} from './model.ts';
export type {
  Comparison,
  Condition,
  FailedCondition,
  Operation,
  OperationResult,
  TransactionResult,
} from './operations.ts';
export { EntryListing, Listing, Pages } from './pages.ts';
export type { RequestId } from './requestIds.ts';
export { tokenFile } from './tokens.ts';
export type { Token } from './tokens.ts';
export { Transaction } from './transaction.ts';
export type { TransactionPutOptions } from './transaction.ts';
export { Watch } from './watch.ts';
