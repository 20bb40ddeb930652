/** How a server is known, and what it is told of who calls. */

import { credentials, Metadata } from '@grpc/grpc-js';
import type { ChannelCredentials, ChannelOptions } from '@grpc/grpc-js';

/** PEM: certificates and keys as node:tls takes them. Read files with node:fs. */
export interface Tls {
  /** The authorities that the server's certificate may be of; undefined: those that Node.js knows. */
  readonly ca?: string | Uint8Array | undefined;
  /** The client's own certificate, where the server asks for one, and its key. */
  readonly cert?: string | Uint8Array | undefined;
  readonly key?: string | Uint8Array | undefined;
  /** The name that the server's certificate must be for, where it is not the host of the address. */
  readonly serverName?: string | undefined;
}

/** A bearer token, or a function that is asked for it before each call. */
export type Token = string | (() => string | undefined | Promise<string | undefined>);

const TOKEN = /^[\x21-\x7e]+$/;

export function channelCredentials(tls: Tls | boolean | undefined): ChannelCredentials {
  if (tls === undefined || tls === false) return credentials.createInsecure();
  if (tls === true) return credentials.createSsl();
  if (tls === null || typeof tls !== 'object') throw new TypeError('tls must be true, false or an object');
  if (!tls.cert !== !tls.key) throw new TypeError('tls.cert and tls.key are given together or not at all');
  return credentials.createSsl(pem('ca', tls.ca), pem('key', tls.key), pem('cert', tls.cert));
}

export function tlsOptions(tls: Tls | boolean | undefined): ChannelOptions {
  const name = typeof tls === 'object' ? tls.serverName : undefined;
  return name ? { 'grpc.ssl_target_name_override': name, 'grpc.default_authority': name } : {};
}

/** Says with each call who makes it. */
export async function identified(token: Token | undefined): Promise<Metadata> {
  const metadata = new Metadata();
  const said = typeof token === 'function' ? await token() : token;
  if (said !== undefined) metadata.set('authorization', `Bearer ${checked(said)}`);
  return metadata;
}

/** The token itself is never part of a message. */
export function checked(token: string): string {
  if (typeof token !== 'string') throw new TypeError('token must be a string, or a function that answers one');
  if (!TOKEN.test(token)) throw new RangeError('token must be printable ASCII without spaces, and not empty');
  return token;
}

function pem(name: string, value: string | Uint8Array | undefined): Buffer | null {
  if (value === undefined) return null;
  const data =
    typeof value === 'string' ? Buffer.from(value) : Buffer.from(value.buffer, value.byteOffset, value.length);
  if (!data.includes('-----BEGIN ')) throw new RangeError(`tls.${name} is not PEM (to name a file, read it first)`);
  return data;
}
