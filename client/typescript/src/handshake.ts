/**
 * Why a server closes connections as soon as they are made: what it says to one handshake by TLS.
 *
 * A server that expects TLS, or a certificate of its clients, closes without a word what comes without, and so does a
 * machine between whose server is away for a moment: only the former begins a handshake.
 */

import { connect as connectPlain, isIP } from 'node:net';
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { connect, createSecureContext } from 'node:tls';
import type { SecureContext } from 'node:tls';

import type { Certificates } from './certificates.ts';

const HANDSHAKE = 22; // the type of a record, RFC 5246, section 6.2.1
const CERTIFICATE_REQUEST = 13; // the type of a message, section 7.4

/**
 * Why connections that are made by these certificates (undefined: in plain text) are refused. undefined: for no reason that
 * a handshake shows within `ms`.
 */
export async function refusal(
  host: string,
  port: number,
  certificates: Certificates | undefined,
  ms: number,
): Promise<string | undefined> {
  const { said, done } = await shakeHands(host, port, certificates, ms);
  if (!certificates) {
    const expected = 'it expects TLS, and this was plain text: connect by TLS (COMITY_TLS=1, COMITY_TLS_CA)';
    return said[0] === HANDSHAKE ? expected : undefined;
  }
  if (done || !messages(said).has(CERTIFICATE_REQUEST)) return undefined;
  return certificates.material.cert
    ? 'it does not accept the client certificate'
    : 'it asks for a client certificate (COMITY_TLS_CLIENT_CERT, COMITY_TLS_CLIENT_KEY)';
}

/** What the server has said, and whether the handshake came to its end before the connection did. */
function shakeHands(host: string, port: number, certificates: Certificates | undefined, ms: number) {
  return new Promise<{ said: Buffer; done: boolean }>((resolve) => {
    const secureContext = trust(certificates);
    const socket = connectPlain(port, host);
    const heard = new Heard(socket);
    const name = certificates?.tls.serverName ?? host;
    const named = isIP(name) ? { host: name } : { servername: name };
    const session = connect({
      ...named,
      secureContext,
      ALPNProtocols: ['h2'],
      rejectUnauthorized: certificates !== undefined,
      socket: heard,
    });
    const end = (done: boolean) => {
      clearTimeout(timer);
      session.destroy();
      socket.destroy();
      resolve({ said: Buffer.concat(heard.said), done });
    };
    const timer = setTimeout(() => end(true), ms).unref(); // it tells nothing
    socket.unref();
    session.on('secureConnect', () => end(true));
    session.on('error', () => end(false));
    session.on('close', () => end(false));
    session.on('end', () => end(false));
  });
}

function trust(certificates: Certificates | undefined): SecureContext {
  if (!certificates) return createSecureContext();
  const { ca, cert, key } = certificates.material;
  return createSecureContext({
    maxVersion: 'TLSv1.2', // by the later one a client is done before the server has looked at its certificate
    ...(ca ? { ca: Buffer.from(ca) } : {}),
    ...(cert && key ? { cert: Buffer.from(cert), key: Buffer.from(key) } : {}),
  });
}

/** The types of the messages of a handshake, up to where they are encrypted. */
function messages(said: Buffer): Set<number> {
  const parts: Buffer[] = [];
  while (said.length >= 5 && said[0] === HANDSHAKE) {
    const end = 5 + said.readUInt16BE(3);
    parts.push(said.subarray(5, end));
    said = said.subarray(end);
  }
  const types = new Set<number>();
  for (let rest = Buffer.concat(parts); rest.length >= 4; rest = rest.subarray(4 + rest.readUIntBE(1, 3))) {
    types.add(rest.readUInt8());
  }
  return types;
}

/** A connection, and what came over it. */
class Heard extends Duplex {
  readonly said: Buffer[] = [];
  readonly #socket: Socket;

  constructor(socket: Socket) {
    super();
    this.#socket = socket;
    socket.on('data', (data) => {
      this.said.push(data);
      this.push(data);
    });
    this.on('error', () => undefined); // told to the session, which may have ended by now
    socket.on('error', (error) => this.destroy(error));
    socket.on('end', () => this.push(null));
    socket.on('close', () => this.destroy());
  }

  override _read(): void {
    // What comes is passed on as it comes: it is little.
  }

  override _write(data: Buffer, _: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#socket.write(data, done);
  }
}
