/** The addresses of servers, as people write them. */

import { BlockList, isIP, isIPv6 } from 'node:net';

const DEFAULT_PORT = '7171';
const LOOPBACK = new BlockList();
LOOPBACK.addSubnet('127.0.0.0', 8); // as IPv6 writes them, too
LOOPBACK.addAddress('::1', 'ipv6');

/** The gRPC targets of `host:port[,host:port]`, in the order in which to try them. The port is 7171 unless said. */
export function targets(addresses: string): string[] {
  if (typeof addresses !== 'string') throw new TypeError('address must be a string, HOST:PORT[,HOST:PORT]');
  return addresses.split(',').map((part) => target(part.trim()));
}

/** A target as people write it. */
export function plain(target: string): string {
  return target.replace(/^(dns:\/\/\/|ipv4:|ipv6:)/, '');
}

/** Whether what is sent to a target does not leave this machine. */
export function isHere(target: string): boolean {
  const host = plain(target).replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1');
  const version = isIP(host);
  if (version) return LOOPBACK.check(host, version === 4 ? 'ipv4' : 'ipv6');
  return /^localhost\.?$/i.test(host);
}

function target(address: string): string {
  const bare = isIPv6(address);
  const split = bare ? null : /^(.*):([^:\]]*)$/.exec(address);
  const host = split?.[1] ?? address;
  const port = split?.[2] ?? DEFAULT_PORT;
  if (!/^\d+$/.test(port) || Number(port) < 1 || Number(port) > 65_535) {
    throw new RangeError(`'${address}' is no address: the port must be a number from 1 to 65535`);
  }
  const name = host.replace(/^\[(.*)\]$/, '$1');
  const version = isIP(name);
  if (version) return version === 4 ? `ipv4:${name}:${port}` : `ipv6:[${name}]:${port}`;
  if (!name || /[[\]:/\s]/.test(name)) throw new RangeError(`'${address}' is no address: it should be HOST:PORT`);
  return `dns:///${name}:${port}`;
}
