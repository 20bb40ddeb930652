/** Why a server cannot be reached, from what grpc-js says: a line that names attempts, errors and notes. */

const OF_CONNECTING = /^(No connection established|Name resolution failed)/i;
const LAST = /Last error: (?:Error(?: \[\w+\])?: )?(.*?)\.?(?: Resolution note: .*)?$/s;
const OF_TLS = /certificate|altnames|\bssl\b|\btls|wrong version number/i;

/** The same for people and programs: `cannot reach 127.0.0.1:7171: …`. undefined: it is about something else. */
export function explained(message: string, address: string): { message: string; reason: string } | undefined {
  if (!OF_CONNECTING.test(message)) return undefined;
  const said = LAST.exec(message)?.[1] ?? message;
  const why = /^Failed to connect/.test(said)
    ? 'it closed the connection at once, as one does that expects TLS, or another client certificate'
    : said.replace(/; if the root CA is installed locally.*/s, '');
  const reason = OF_TLS.test(said) ? 'TLS_FAILED' : 'UNREACHABLE';
  return { message: `cannot reach ${address}: ${why}`, reason };
}
