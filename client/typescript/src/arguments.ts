/** What callers give, checked before it is sent. Throws TypeError for the wrong type, RangeError for the wrong value. */

/** A whole number: what the server answers is a bigint, what a program writes may be either. */
export type Int = bigint | number;

const MAX_INT64 = 2n ** 63n - 1n;
/** Half of the time for which a server remembers the request ids of a silent client, in ms. */
export const MAX_WRITE_MS = 300_000;
/** What a timer of Node.js can hold. */
export const MAX_TIMEOUT_MS = 2 ** 31 - 1;

export function int(name: string, value: Int): bigint {
  if (typeof value !== 'bigint' && typeof value !== 'number') {
    throw new TypeError(`${name} must be a bigint or a whole number, not ${shown(value)}`);
  }
  if (typeof value === 'number' && !Number.isSafeInteger(value)) {
    throw new RangeError(`${name} must be a bigint or a whole number up to 2^53-1, not ${value}`);
  }
  const number = BigInt(value);
  if (number > MAX_INT64 || number < -MAX_INT64 - 1n)
    throw new RangeError(`${name} must fit into 64 bits, not ${value}`);
  return number;
}

/** A string without half of a surrogate pair, which UTF-8 could not hold. */
export function text(name: string, value: string): string {
  if (typeof value !== 'string') throw new TypeError(`${name} must be a string, not ${shown(value)}`);
  if (!value.isWellFormed()) throw new RangeError(`${name} is not Unicode: it has half of a surrogate pair`);
  return value;
}

export function timeout(value: number): number {
  if (typeof value !== 'number') throw new TypeError(`timeoutMs must be a number of ms above 0, not ${shown(value)}`);
  if (!(value > 0 && value <= MAX_TIMEOUT_MS)) {
    throw new RangeError(`timeoutMs must be a number of ms above 0 and below 2^31, not ${value}`);
  }
  return value;
}

/** Milliseconds as a google.protobuf.Duration. */
export function duration(name: string, value: number): { seconds: bigint; nanos: number } {
  if (typeof value !== 'number') throw new TypeError(`${name} must be a number of ms above 0, not ${shown(value)}`);
  if (!(value > 0 && value < Number.MAX_SAFE_INTEGER)) {
    throw new RangeError(`${name} must be a number of ms above 0, not ${value}`);
  }
  const micros = Math.round((value % 1_000) * 1_000);
  return micros === 1_000_000
    ? { seconds: BigInt(Math.floor(value / 1_000) + 1), nanos: 0 }
    : { seconds: BigInt(Math.floor(value / 1_000)), nanos: micros * 1_000 };
}

/** What a value is, for a message. */
export function shown(value: unknown): string {
  return value === null ? 'null' : typeof value;
}
