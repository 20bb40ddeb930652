/** From a gRPC status and its trailer to an error of this client. */

import { status as Code } from '@grpc/grpc-js';
import type { ServiceError } from '@grpc/grpc-js';
import { fromBinary } from '@bufbuild/protobuf';
import type { DescMessage, MessageShape } from '@bufbuild/protobuf';
import { anyUnpack } from '@bufbuild/protobuf/wkt';
import type { Any, Duration } from '@bufbuild/protobuf/wkt';

import * as errors from './errors.ts';
import {
  BadRequestSchema,
  ErrorInfoSchema,
  RequestInfoSchema,
  RetryInfoSchema,
} from './gen/google/rpc/error_details_pb.ts';
import { StatusSchema } from './gen/google/rpc/status_pb.ts';
import { explained } from './unreachable.ts';

const DETAILS = 'grpc-status-details-bin';
const DOMAIN = 'comity';

type Kind = new (message: string, details?: errors.ErrorDetails) => errors.ComityError;

const BY_REASON: Record<string, Kind | undefined> = {
  COMPACTED: errors.Compacted,
  EPOCH_CHANGED: errors.Compacted,
  LEASE_LOST: errors.LeaseLost,
  LEASE_NOT_FOUND: errors.LeaseNotFound,
};
const BY_CODE: Record<string, Kind | undefined> = {
  // Of a call that nobody here cancelled: gRPC's server does so with what it has no room for.
  CANCELLED: errors.Unavailable,
  ...Object.fromEntries(
    [
      errors.Conflict,
      errors.InvalidArgument,
      errors.NotFound,
      errors.AlreadyExists,
      errors.OutOfRange,
      errors.ResourceExhausted,
      errors.FailedPrecondition,
      errors.Unauthenticated,
      errors.PermissionDenied,
      errors.Unavailable,
      errors.DeadlineExceeded,
      errors.Unimplemented,
      errors.Internal,
    ].map((kind) => [kind.code, kind]),
  ),
};

// What grpc-js says when a connection broke under a call, with codes that may mean other things too.
const BROKEN = /rst_stream|goaway|connection dropped|socket closed|econnreset|epipe|stream (removed|terminated)/i;

/** Milliseconds of a Duration. */
export function milliseconds(duration: Duration): number {
  return Number(duration.seconds) * 1_000 + duration.nanos / 1e6;
}

/** Whether what a stream or a call failed with is a status of gRPC. */
export function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'code' in error && 'details' in error && typeof error.code === 'number';
}

/** What grpc-js says of an answer that is HTTP, and not gRPC. */
const OF_HTTP = /^Received HTTP status code (\d+)/;

/**
 * The error for what a call to an address failed with. Details that are missing, malformed or of another domain are left
 * out; what is no status of gRPC comes back as it is.
 */
export function errorFrom(failure: unknown, address: string): unknown {
  if (!isServiceError(failure)) return failure;
  const details = detailsOf(failure);
  const info = detail(details, ErrorInfoSchema);
  const known = info?.domain === DOMAIN ? info : undefined;
  const retry = detail(details, RetryInfoSchema)?.retryDelay;
  const retryAfterMs = retry && milliseconds(retry);
  const reason = known?.reason ?? '';
  const code = Code[failure.code] ?? 'UNKNOWN';
  const http = known ? null : OF_HTTP.exec(failure.details);
  const message = http
    ? `what answers at ${address} is no gRPC server, or a proxy that does not reach one: HTTP ${http[1]}`
    : failure.details || code;

  const why = failure.code === Code.UNAVAILABLE && !known ? explained(message, address) : undefined;
  if (why) return new errors.Unavailable(why.message, { reason: why.reason, cause: failure });
  if (failure.code === Code.DEADLINE_EXCEEDED && !known) {
    return new errors.DeadlineExceeded(`no answer from ${address} in time`, { cause: failure });
  }
  let kind = BY_REASON[reason] ?? BY_CODE[code] ?? errors.Internal;
  if (kind === errors.ResourceExhausted && retryAfterMs !== undefined) kind = errors.RateLimited;
  return new kind(message, {
    code,
    reason,
    metadata: known?.metadata ?? {},
    violations: (detail(details, BadRequestSchema)?.fieldViolations ?? []).map(({ field, description }) => ({
      field,
      description,
    })),
    retryAfterMs,
    requestId: detail(details, RequestInfoSchema)?.requestId,
    cause: failure,
  });
}

/** Whether the same request may well succeed a little later: the server was away or had enough to do, or the connection broke. */
export function isTransient(error: unknown): error is errors.ComityError {
  if (error instanceof errors.Unavailable || error instanceof errors.RateLimited) return true;
  return error instanceof errors.Internal && !error.reason && BROKEN.test(error.message);
}

function detailsOf(failure: ServiceError): readonly Any[] {
  const trailer = failure.metadata?.get(DETAILS)[0];
  if (!(trailer instanceof Uint8Array)) return [];
  try {
    return fromBinary(StatusSchema, trailer).details;
  } catch {
    return [];
  }
}

function detail<Desc extends DescMessage>(details: readonly Any[], schema: Desc): MessageShape<Desc> | undefined {
  for (const packed of details) {
    try {
      const found = anyUnpack(packed, schema);
      if (found) return found;
    } catch {
      return undefined;
    }
  }
  return undefined;
}
