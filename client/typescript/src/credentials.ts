/** How a server is known. */

import { credentials } from '@grpc/grpc-js';
import type { ChannelCredentials, ChannelOptions } from '@grpc/grpc-js';

import { isHere } from './addresses.ts';

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

const SERVER_NAME = /^[A-Za-z0-9_.:-]{1,253}$/;

/** The same. Throws TypeError and RangeError for what no connection can be made by. */
export function checkedTls(tls: Tls | false | undefined): Tls | false | undefined {
  if (tls === undefined || tls === false) return tls;
  if (tls === null || typeof tls !== 'object') throw new TypeError('tls must be true, false or an object');
  if (!tls.cert !== !tls.key) throw new TypeError('tls.cert and tls.key are given together or not at all');
  const { serverName } = tls;
  if (serverName !== undefined && typeof serverName !== 'string') {
    throw new TypeError('tls.serverName must be a string');
  }
  if (serverName !== undefined && !SERVER_NAME.test(serverName)) {
    throw new RangeError(`tls.serverName must be a host name or an IP address, not '${serverName.slice(0, 100)}'`);
  }
  channelCredentials(tls);
  return tls;
}

/** By TLS, or in plain text. */
export function channelCredentials(tls: Tls | undefined): ChannelCredentials {
  if (tls === undefined) return credentials.createInsecure();
  return credentials.createSsl(pem('ca', tls.ca), pem('key', tls.key), pem('cert', tls.cert));
}

/** What gRPC is told of a target, besides. */
export function channelOptions(target: string, tls: Tls | undefined): ChannelOptions {
  const name = tls?.serverName;
  return {
    ...(name ? { 'grpc.ssl_target_name_override': name, 'grpc.default_authority': name } : {}),
    // A proxy, as in the variable http_proxy, would read a token in plain text, and has no way to this machine.
    ...(tls && !isHere(target) ? {} : { 'grpc.enable_http_proxy': 0 }),
  };
}

function pem(name: string, value: string | Uint8Array | undefined): Buffer | null {
  if (value === undefined) return null;
  if (typeof value !== 'string' && !(value instanceof Uint8Array)) {
    throw new TypeError(`tls.${name} must be PEM, as a string or bytes`);
  }
  const data =
    typeof value === 'string' ? Buffer.from(value) : Buffer.from(value.buffer, value.byteOffset, value.length);
  if (!data.includes('-----BEGIN ')) throw new RangeError(`tls.${name} is not PEM (to name a file, read it first)`);
  return data;
}
