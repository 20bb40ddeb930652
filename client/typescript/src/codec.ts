/** From JavaScript values to stored bytes and back, by content type. */

import { DecodeError } from './errors.ts';

export const JSON_TYPE = 'application/json';
export const BYTES_TYPE = 'application/octet-stream';

export interface Encoded {
  readonly value: Uint8Array<ArrayBuffer>;
  readonly contentType: string;
}

/**
 * The bytes to store for a value, and their content type.
 *
 * A Uint8Array (so a Buffer, too) stays as it is (application/octet-stream); everything else is written as JSON
 * (application/json). `contentType` says another type; a string with one that is not JSON, such as text/plain, is written
 * as UTF-8.
 *
 * Throws TypeError for what JSON cannot hold: undefined, functions, bigint; RangeError for NaN and infinities.
 */
export function encode(value: unknown, contentType?: string): Encoded {
  if (value instanceof Uint8Array) return { value: new Uint8Array(value), contentType: contentType ?? BYTES_TYPE };
  const text =
    typeof value === 'string' && contentType !== undefined && !isJson(contentType) ? wellFormed(value) : toJson(value);
  return { value: new TextEncoder().encode(text), contentType: contentType ?? JSON_TYPE };
}

/**
 * The value of stored bytes: JSON is parsed, text/* becomes a string, all else stays bytes. The key is for messages.
 *
 * Throws DecodeError if the bytes are not what the content type says.
 */
export function decode(data: Uint8Array, contentType: string, key: string): unknown {
  const json = isJson(contentType);
  if (!json && !contentType.startsWith('text/')) return data;
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(data);
    return json ? (JSON.parse(text) as unknown) : text;
  } catch (cause) {
    const said = cause instanceof Error ? cause.message : String(cause);
    throw new DecodeError(`the value of ${JSON.stringify(key)} is not the ${contentType} that it should be: ${said}`, {
      metadata: { key },
      cause,
    });
  }
}

/** Whether a content type is JSON: application/json, or one that ends with +json; parameters do not matter. */
export function isJson(contentType: string): boolean {
  const essence = (contentType.split(';', 1)[0] ?? '').trim().toLowerCase();
  return essence === JSON_TYPE || essence.endsWith('+json');
}

function toJson(value: unknown): string {
  const text = JSON.stringify(value, (_, part: unknown) => {
    if (typeof part === 'number' && !Number.isFinite(part)) throw new RangeError(`JSON cannot hold the number ${part}`);
    return part;
  }) as string | undefined;
  if (text === undefined) throw new TypeError(`a value of type ${typeof value} cannot be written as JSON`);
  return text;
}

function wellFormed(text: string): string {
  if (!text.isWellFormed()) throw new RangeError('the value has text that is not Unicode: half of a surrogate pair');
  return text;
}
