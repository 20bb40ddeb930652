/** Small files that a client is told of: certificates, keys and tokens, which others replace while it runs. */

import { readFileSync, statSync } from 'node:fs';
import { resolve } from 'node:path';

import { shown } from './arguments.ts';

const MOST_BYTES = 1024 * 1024;

/** A path as an absolute one. Throws TypeError and RangeError for what is none. */
export function absolute(name: string, path: string): string {
  if (typeof path !== 'string') throw new TypeError(`${name} must be a path, not ${shown(path)}`);
  if (!path || path.includes('\0')) throw new RangeError(`${name} must be a path, not '${path.slice(0, 100)}'`);
  return resolve(path);
}

/** What a file holds. Throws what reading it throws, and RangeError for what is no file or larger than 1 MiB. */
export function read(name: string, path: string): Buffer {
  const { size, isFile } = seen(path);
  if (!isFile) throw new RangeError(`${name}: ${path} is no file`); // else reading might wait for ever
  if (size > MOST_BYTES) throw new RangeError(`${name}: ${path} is larger than ${MOST_BYTES} bytes`);
  return readFileSync(path);
}

/** What is another once a file was replaced or written to; empty: there is none that can be seen. */
export function state(path: string): string {
  try {
    return seen(path).state;
  } catch {
    return '';
  }
}

function seen(path: string): { size: number; isFile: boolean; state: string } {
  const found = statSync(path, { bigint: true });
  const state = [found.dev, found.ino, found.size, found.mtimeNs].join();
  return { size: Number(found.size), isFile: found.isFile(), state };
}
