/** When to try again, and how long to wait before. */

import { setTimeout as delayed } from 'node:timers/promises';

import { MAX_TIMEOUT_MS } from './arguments.ts';
import { DeadlineExceeded, Unavailable } from './errors.ts';
import { isTransient } from './status.ts';
import { TLS_FAILED } from './unreachable.ts';

const ROTATION_MS = 2_000; // for which certificates that do not fit may be those of two sides that are about to be replaced

/** Milliseconds of a clock that never steps. */
export function now(): number {
  return performance.now();
}

/** Wait so many ms. Rejects with the signal's reason once it fires. */
export async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  try {
    await delayed(ms, undefined, signal ? { signal } : {});
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
}

/**
 * What is worked on, unless the signal fires first, or `ms` pass: then it is left to itself, and it rejects with the
 * signal's reason, or with what `late` says.
 */
export async function within<T>(
  work: Promise<T>,
  signal?: AbortSignal,
  ms: number = Infinity,
  late?: () => Error,
): Promise<T> {
  signal?.throwIfAborted();
  const given = Promise.withResolvers<T>();
  const abort = () => given.reject(signal?.reason);
  const timer = setTimeout(() => given.reject(late?.()), Math.max(0, Math.min(ms, MAX_TIMEOUT_MS)));
  signal?.addEventListener('abort', abort, { once: true });
  work.then(given.resolve, given.reject);
  try {
    return await given.promise;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', abort);
  }
}

/** Waiting times with full jitter: each is from 0 to a bound that doubles from `first` to `most` ms. */
export class Backoff {
  readonly #first: number;
  readonly #most: number;
  #bound: number;

  constructor(first = 20, most = 1_000) {
    this.#first = first;
    this.#most = most;
    this.#bound = first;
  }

  /** Begin again with the first bound, after a success. */
  reset(): void {
    this.#bound = this.#first;
  }

  /**
   * Milliseconds to wait, so that some of the remaining ones are left for the next try; undefined if that cannot be. The
   * jitter comes on top of what a server asks for, so that its callers do not return at once.
   */
  delay(remaining: number, atLeast = 0): number | undefined {
    const spare = remaining - atLeast;
    if (spare < this.#first) return undefined;
    const bound = Math.min(this.#bound, spare);
    this.#bound = Math.min(this.#bound * 2, this.#most);
    return atLeast + Math.random() * bound;
  }
}

/** For how long every try has failed since no connection by TLS can be made, which will hardly pass by itself. */
export class Misfit {
  #since: number | undefined;

  /** Whether it has, with this error, for so long that there is no use in another try. */
  lasts(error: unknown): boolean {
    if (!(error instanceof Unavailable && error.reason === TLS_FAILED)) {
      this.#since = undefined;
      return false;
    }
    this.#since ??= now();
    return now() - this.#since >= ROTATION_MS;
  }
}

/** The tries of one call, until a deadline by `now`. */
export class Retry {
  readonly #deadline: number;
  readonly #backoff = new Backoff();
  readonly #misfit = new Misfit();
  #last: unknown;
  /** Whether one of them may have been applied. */
  #open = false;

  constructor(deadline: number) {
    this.#deadline = deadline;
  }

  /** Milliseconds that the next try has. */
  remaining(): number {
    return Math.max(0, this.#deadline - now());
  }

  /**
   * Milliseconds to wait before the next try after this error; throws if there is to be none.
   *
   * What is thrown is true of all tries. A write of which one try had no answer may have been applied, whatever became of
   * the others: that is DeadlineExceeded, whose cause is what failed another try. Where the time was up in the midst of a
   * later try, Unavailable says as much, and more: it is thrown as it was.
   */
  delay(error: unknown): number {
    const last = this.#last;
    this.#last = error;
    if (error instanceof DeadlineExceeded && last !== undefined) {
      throw last instanceof Unavailable ? last : outOfTime(error.message, last);
    }
    if (!isTransient(error) || this.#misfit.lasts(error)) throw error;
    const wasOpen = this.#open;
    this.#open ||= error instanceof Unavailable;
    const delay = this.#backoff.delay(this.remaining(), error.retryAfterMs);
    if (delay !== undefined) return delay;
    throw wasOpen && !(error instanceof Unavailable) ? outOfTime('a try had no answer in time', error) : error;
  }
}

function outOfTime(message: string, cause: unknown): DeadlineExceeded {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new DeadlineExceeded(`${message} (another try: ${why})`, { cause });
}
