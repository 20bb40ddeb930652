/** How a server is reached: its addresses, by TLS or in plain text, and by which token it knows who calls. */

import { isHere, plain, targets } from './addresses.ts';
import { Certificates } from './certificates.ts';
import { checkedTls } from './credentials.ts';
import type { Tls } from './credentials.ts';
import { checkedToken, tokenFile } from './tokens.ts';
import type { Token } from './tokens.ts';

/** What the connections of a client are made by. */
export interface Access {
  readonly address: string;
  readonly certificates: Certificates | undefined;
  readonly token: Token | undefined;
}

type Variables = Readonly<Record<string, string | undefined>>;

const ADDRESS = '127.0.0.1:7171';
const OF_TLS = ['COMITY_TLS_CA', 'COMITY_TLS_CLIENT_CERT', 'COMITY_TLS_CLIENT_KEY', 'COMITY_TLS_SERVER_NAME'];
const YES = new Set(['1', 'true', 'yes', 'on']);
const NO = new Set(['0', 'false', 'no', 'off']);

/**
 * What the arguments of `connect` mean, and where they say nothing, the variables.
 *
 * Throws TypeError and RangeError for what is none of these; RangeError for a token that would go to another machine in plain
 * text without `tls: false` having been said; and what reading the files throws.
 */
export function access(
  said: { address?: string | undefined; tls?: Tls | boolean | undefined; token?: Token | undefined },
  variables: Variables,
): Access {
  const address = said.address || variables['COMITY_ADDRESS'] || ADDRESS;
  const reached = targets(address);
  const wanted = said.tls ?? isTlsWanted(variables);
  const tls = wanted === true ? tlsOf(variables) : checkedTls(wanted);
  const token = said.token === undefined ? tokenOf(variables) : checkedToken(said.token);
  const other = reached.find((target) => !isHere(target));
  if (token !== undefined && tls === undefined && other !== undefined) {
    throw new RangeError(
      `a token is not sent in plain text to another machine (${plain(other)}): connect by TLS, or say tls: false ` +
        '(COMITY_TLS=0) where nobody else is on the network between',
    );
  }
  return { address, certificates: tls ? new Certificates(tls) : undefined, token };
}

/** What the variables say: whether to connect by TLS; undefined: nothing. What names a file of it says so, too. */
function isTlsWanted(variables: Variables): boolean | undefined {
  const said = (variables['COMITY_TLS'] ?? '').toLowerCase();
  if (YES.has(said) || NO.has(said)) return YES.has(said);
  if (said) throw new RangeError(`COMITY_TLS is 1 or 0, not '${said.slice(0, 100)}'`);
  return OF_TLS.some((name) => variables[name]) ? true : undefined;
}

function tlsOf(variables: Variables): Tls {
  const said = (name: string) => variables[name] || undefined;
  const tls = {
    caFile: said('COMITY_TLS_CA'),
    certFile: said('COMITY_TLS_CLIENT_CERT'),
    keyFile: said('COMITY_TLS_CLIENT_KEY'),
    serverName: said('COMITY_TLS_SERVER_NAME'),
  };
  return checkedTls(tls) || {};
}

function tokenOf(variables: Variables): Token | undefined {
  const { COMITY_TOKEN: token, COMITY_TOKEN_FILE: path } = variables;
  if (token) return checkedToken(token, 'COMITY_TOKEN');
  return path ? tokenFile(path) : undefined;
}
