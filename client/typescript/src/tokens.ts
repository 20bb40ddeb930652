/** The token by which the server knows who calls: a string, what a function answers, or what a file holds. */

import { shown } from './arguments.ts';
import { ComityError, Unauthenticated } from './errors.ts';
import { absolute, read, state } from './files.ts';

/** A bearer token, or a function that is asked for it before each call. */
export type Token = string | (() => string | Promise<string>);

const MOST_CHARACTERS = 8_000; // a server reads 8 KiB of the header
const TOKEN = /^[A-Za-z0-9._~+/-]+=*$/; // RFC 6750, section 2.1

/** The token, or the function. Throws TypeError and RangeError, which do not show it, for what is none. */
export function checkedToken<T extends Token>(token: T, what = 'token'): T {
  if (typeof token === 'function') return token;
  if (typeof token !== 'string') {
    throw new TypeError(`${what} must be a string, or a function that answers one, not ${shown(token)}`);
  }
  if (!token) throw new RangeError(`${what} is empty`);
  if (token.length > MOST_CHARACTERS) throw new RangeError(`${what} has more than ${MOST_CHARACTERS} characters`);
  if (!TOKEN.test(token)) throw new RangeError(`${what} must be of letters, digits and ._~+/- alone`);
  return token;
}

/** The token as it is now. Throws Unauthenticated where the function has none. */
export async function ask(token: Token | undefined): Promise<string | undefined> {
  if (typeof token !== 'function') return token;
  try {
    const said = await token();
    if (typeof said === 'function') throw new TypeError('it must answer a string');
    return checkedToken(said, 'what the function of the token answers'); // without one the call would be anybody's
  } catch (error) {
    if (error instanceof ComityError) throw error;
    const why = error instanceof Error ? error.message : String(error);
    throw new Unauthenticated(`there is no token: ${why}`, { reason: 'NO_TOKEN', cause: error });
  }
}

/**
 * The token that a file holds, for `token` of `connect`. It is read again when the file has changed. What cannot be used
 * then is warned of, and the token that was there before stays. Throws what reading the file throws, and RangeError for one
 * that holds none.
 */
export function tokenFile(path: string): () => string {
  const file = absolute('the token file', path);
  const load = () => checkedToken(read('the token file', file).toString().trim(), `the token in ${file}`);
  let known = state(file);
  let token = load();
  return () => {
    const seen = state(file);
    if (seen === known) return token;
    known = seen;
    try {
      token = load();
    } catch (error) {
      process.emitWarning(`the token is not renewed: ${String(error)}`, 'ComityWarning');
    }
    return token;
  };
}
