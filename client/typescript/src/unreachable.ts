/** Why a server cannot be reached, from what grpc-js says: a line that names attempts, errors and notes. */

/** The reason of a server that was not reached. */
export const UNREACHABLE = 'UNREACHABLE';
/** The reason of one that was, by no connection by TLS: soon, the same will be so. */
export const TLS_FAILED = 'TLS_FAILED';

const OF_CONNECTING = /^(No connection established|Name resolution failed)/i;
const LAST = /Last error: (?:Error(?: \[\w+\])?: )?(.*?)\.?(?: \(\d{4}-[\dT:.-]*Z\))?\.?(?: Resolution note: .*)?$/s;
const OF_NAMES = /^Name resolution failed/i;
const OF_OTHERS = /^Protocol error/i;
const OF_CLOSING = /^Failed to connect|Client network socket disconnected|socket hang up|ECONNRESET|EPIPE|Socket closed/i;
const OF_TLS: readonly (readonly [RegExp, string])[] = [
  [/alert certificate required/i, 'it asks for a client certificate (COMITY_TLS_CLIENT_CERT, COMITY_TLS_CLIENT_KEY)'],
  [/alert unknown ca/i, 'it does not trust the client certificate'],
  [/alert bad certificate/i, 'it does not accept the client certificate'],
  [/alert certificate expired/i, 'it says that the client certificate has expired'],
  [/alert certificate unknown/i, 'it does not accept the client certificate'],
  [/certificate has expired/i, 'its certificate has expired'],
  [/certificate is not yet valid/i, 'its certificate is not valid yet'],
  [/altnames|certificate's CN/i, 'its certificate is for another name'],
  [
    /unable to (verify|get).* certificate|self[- ]signed certificate/i,
    'its certificate is signed by none of the authorities that are trusted here (COMITY_TLS_CA)',
  ],
  [
    /wrong version number|packet length too long/i,
    'it does not speak TLS: connect in plain text (COMITY_TLS=0), or to the port that does',
  ],
];
const HUNG_UP = 'it closed the connection at once, as one does that expects TLS, or another client certificate';
const OF_OPENSSL = /ssl routines:(?:[^:]*:)?([^:]+?)(?::\.\.\/.*)?\s*$/i;

/** The same for people and programs: `cannot reach 127.0.0.1:7171: …`. undefined: it is about something else. */
export function explained(message: string, address: string): { message: string; reason: string } | undefined {
  if (!OF_CONNECTING.test(message)) return undefined;
  const said = LAST.exec(message)?.[1] ?? message;
  const known = OF_TLS.find(([words]) => words.test(said))?.[1];
  if (known !== undefined) return { message: `cannot reach ${address}: ${known}`, reason: TLS_FAILED };
  const failed = OF_OPENSSL.exec(said)?.[1];
  if (failed !== undefined) {
    const why = `no connection by TLS could be made: ${failed}`;
    return { message: `cannot reach ${address}: ${why}`, reason: TLS_FAILED };
  }
  // A server that wants TLS, or a certificate, closes without a word what comes without. So does one that just ends.
  let why = said;
  if (OF_CLOSING.test(said)) why = HUNG_UP;
  else if (OF_OTHERS.test(said)) why = 'it speaks no HTTP/2, as the port of something else may';
  else if (OF_NAMES.test(said)) why = 'domain name not found';
  return { message: `cannot reach ${address}: ${why}`, reason: UNREACHABLE };
}

/** Whether this is said of a server that closes connections as soon as they are made. */
export function hungUp(message: string): boolean {
  return message.endsWith(HUNG_UP);
}
