/** How a server is known. */

import { credentials } from '@grpc/grpc-js';
import type { ChannelCredentials, ChannelOptions } from '@grpc/grpc-js';

import { isHere } from './addresses.ts';
import { absolute } from './files.ts';
import { patient } from './patience.ts';

/**
 * Certificates and keys in PEM: as node:tls takes them, or by the paths of their files. Files are read at once, and again
 * when a connection fails and they have changed. What cannot be used then is warned of, and what was there before stays.
 */
export interface Tls {
  /** The authorities that the server's certificate may be of; undefined: those that Node.js knows. */
  readonly ca?: string | Uint8Array | undefined;
  readonly caFile?: string | undefined;
  /** The client's own certificate, where the server asks for one, and its key. */
  readonly cert?: string | Uint8Array | undefined;
  readonly certFile?: string | undefined;
  readonly key?: string | Uint8Array | undefined;
  readonly keyFile?: string | undefined;
  /** The name that the server's certificate must be for, where it is not the host of the address. */
  readonly serverName?: string | undefined;
}

const SERVER_NAME = /^[A-Za-z0-9_.:-]{1,253}$/;

/** The same, with absolute paths. Throws TypeError and RangeError for what no connection can be made by. */
export function checkedTls(tls: Tls | false | undefined): Tls | false | undefined {
  if (tls === undefined || tls === false) return tls;
  if (tls === null || typeof tls !== 'object') throw new TypeError('tls must be true, false or an object');
  const paths: Partial<Record<'caFile' | 'certFile' | 'keyFile', string>> = {};
  for (const name of ['ca', 'cert', 'key'] as const) {
    const path = tls[`${name}File`];
    if (path === undefined) continue;
    if (tls[name] !== undefined) throw new TypeError(`tls takes either ${name} or ${name}File`);
    paths[`${name}File`] = absolute(`tls.${name}File`, path);
  }
  if (!(tls.cert ?? tls.certFile) !== !(tls.key ?? tls.keyFile)) {
    throw new TypeError('tls.cert and tls.key are given together or not at all');
  }
  const { serverName } = tls;
  if (serverName !== undefined && typeof serverName !== 'string') {
    throw new TypeError('tls.serverName must be a string');
  }
  if (serverName !== undefined && !SERVER_NAME.test(serverName)) {
    throw new RangeError(`tls.serverName must be a host name or an IP address, not '${serverName.slice(0, 100)}'`);
  }
  return { ...tls, ...paths };
}

/** Of PEM. Throws TypeError and RangeError for what is none, and what node:tls throws. */
export function channelCredentials({ ca, cert, key }: Pick<Tls, 'ca' | 'cert' | 'key'>): ChannelCredentials {
  return patient(credentials.createSsl(pem('ca', ca), pem('key', key), pem('cert', cert)));
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
  if (!data.includes('-----BEGIN ')) throw new RangeError(`tls.${name} is not PEM (to name a file, say tls.${name}File)`);
  return data;
}
