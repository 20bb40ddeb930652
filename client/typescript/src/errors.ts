/**
 * Every error that this client throws, as one tree.
 *
 *     ComityError
 *     ├── Conflict             somebody was faster: a condition of the write did not hold
 *     ├── InvalidArgument      the request is wrong; names the fields at fault
 *     ├── NotFound             the namespace or the checkpoint does not exist
 *     │   └── LeaseNotFound    the lease has ended, or there never was one
 *     ├── AlreadyExists        the name of a checkpoint or a fork is taken
 *     ├── OutOfRange           a revision that cannot be read
 *     │   └── Compacted        ... since it is below the floor, or of a history that is gone
 *     ├── ResourceExhausted    a quota or a limit of the server
 *     │   └── RateLimited      too much at a time: the same may well succeed after `retryAfterMs`
 *     ├── FailedPrecondition   the state does not allow it, such as an increment of what is no number
 *     │   └── LeaseLost        a lease that is held, or that guards a write, has ended
 *     ├── Unauthenticated      the server does not know who asks
 *     ├── PermissionDenied     it knows, and does not allow this
 *     ├── Unavailable          no server could be reached, or it is not serving now
 *     ├── DeadlineExceeded     the time was up; a write may or may not have been applied
 *     ├── Unimplemented
 *     ├── Internal             the server failed; its log has the rest under metadata.error_id
 *     └── DecodeError          a stored value is not what its content type says
 *
 * Arguments that do not fit are TypeError and RangeError. A call whose AbortSignal fires rejects with the signal's reason.
 */

/** What is wrong with one field of a request, named by its path: `then[2].put.key`. */
export interface Violation {
  readonly field: string;
  readonly description: string;
}

/** What is known of an error beside its message. */
export interface ErrorDetails {
  code?: string;
  reason?: string;
  metadata?: Readonly<Record<string, string>>;
  violations?: readonly Violation[];
  retryAfterMs?: number | undefined;
  requestId?: string | undefined;
  cause?: unknown;
}

/** The base of all errors of this client. */
export class ComityError extends Error {
  /** The gRPC status of this class of errors. */
  static readonly code: string = 'UNKNOWN';

  /** The gRPC status: `ABORTED`. */
  readonly code: string;
  /** What happened, for programs, in UPPER_SNAKE_CASE; empty where gRPC says none. */
  readonly reason: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly violations: readonly Violation[];
  /** How long the server asked to wait before the next try, in ms; undefined if it said nothing. */
  readonly retryAfterMs: number | undefined;
  /** The id under which the server's log has the call; empty if it said none. */
  readonly requestId: string;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = new.target.name;
    this.code = details.code ?? new.target.code;
    this.reason = details.reason ?? '';
    this.metadata = details.metadata ?? {};
    this.violations = details.violations ?? [];
    this.retryAfterMs = details.retryAfterMs;
    this.requestId = details.requestId ?? '';
  }

  /** A number of the metadata; undefined if there is none. */
  protected number(name: string): bigint | undefined {
    const text = this.metadata[name];
    return text !== undefined && /^-?\d+$/.test(text) ? BigInt(text) : undefined;
  }
}

/** A condition of the write did not hold, or a transaction function lost each time until its time was up. */
export class Conflict extends ComityError {
  static override readonly code: string = 'ABORTED';

  /** The key that the condition was on; undefined if it was on a prefix or a namespace. */
  get key(): string | undefined {
    return this.metadata['key'];
  }

  /** The version that the key has (0n: it does not exist). */
  get version(): bigint | undefined {
    return this.number('version');
  }

  /** The revision of the key's last write (0n: it does not exist). */
  get modRevision(): bigint | undefined {
    return this.number('mod_revision');
  }

  /** The prefix that the condition was on; undefined if it was on a key or a namespace. */
  get prefix(): string | undefined {
    return this.metadata['prefix'];
  }

  /** The namespace's newest revision when the condition was judged. */
  get revision(): bigint | undefined {
    return this.number('revision');
  }
}

export class InvalidArgument extends ComityError {
  static override readonly code: string = 'INVALID_ARGUMENT';
}

export class NotFound extends ComityError {
  static override readonly code: string = 'NOT_FOUND';
}

export class LeaseNotFound extends NotFound {}

export class AlreadyExists extends ComityError {
  static override readonly code: string = 'ALREADY_EXISTS';
}

export class OutOfRange extends ComityError {
  static override readonly code: string = 'OUT_OF_RANGE';

  /** The oldest revision that can be read. */
  get floor(): bigint | undefined {
    return this.number('floor');
  }

  /** The newest revision. */
  get revision(): bigint | undefined {
    return this.number('revision');
  }
}

export class Compacted extends OutOfRange {}

export class ResourceExhausted extends ComityError {
  static override readonly code: string = 'RESOURCE_EXHAUSTED';
}

export class RateLimited extends ResourceExhausted {}

export class FailedPrecondition extends ComityError {
  static override readonly code: string = 'FAILED_PRECONDITION';
}

export class LeaseLost extends FailedPrecondition {
  get leaseId(): bigint | undefined {
    return this.number('lease_id');
  }
}

export class Unauthenticated extends ComityError {
  static override readonly code: string = 'UNAUTHENTICATED';
}

export class PermissionDenied extends ComityError {
  static override readonly code: string = 'PERMISSION_DENIED';
}

export class Unavailable extends ComityError {
  static override readonly code: string = 'UNAVAILABLE';
}

export class DeadlineExceeded extends ComityError {
  static override readonly code: string = 'DEADLINE_EXCEEDED';
}

export class Unimplemented extends ComityError {
  static override readonly code: string = 'UNIMPLEMENTED';
}

export class Internal extends ComityError {
  static override readonly code: string = 'INTERNAL';
}

export class DecodeError extends ComityError {
  static override readonly code: string = 'FAILED_PRECONDITION';
}
