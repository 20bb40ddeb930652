/** The certificates and keys that connections by TLS are made with, as they were given, or as their files hold them. */

import type { ChannelCredentials } from '@grpc/grpc-js';

import { channelCredentials } from './credentials.ts';
import type { Tls } from './credentials.ts';
import * as files from './files.ts';

/** PEM. */
export interface Material {
  readonly ca: string | Uint8Array | undefined;
  readonly cert: string | Uint8Array | undefined;
  readonly key: string | Uint8Array | undefined;
}

/**
 * Those that are in force: what the files hold now, or where that cannot be used, which is warned of, what they held
 * before. Throws what the files throw at first.
 */
export class Certificates {
  /** How they were named. */
  readonly tls: Tls;
  #state: string;
  #material: Material;
  #credentials: ChannelCredentials;

  constructor(tls: Tls) {
    this.tls = tls;
    this.#state = look(tls);
    this.#material = load(tls);
    this.#credentials = channelCredentials(this.#material);
  }

  get material(): Material {
    this.#renew();
    return this.#material;
  }

  /** The same as long as what is in force is. */
  get credentials(): ChannelCredentials {
    this.#renew();
    return this.#credentials;
  }

  #renew(): void {
    const state = look(this.tls);
    if (state === this.#state) return;
    this.#state = state;
    try {
      const material = load(this.tls);
      this.#credentials = channelCredentials(material);
      this.#material = material;
    } catch (error) {
      process.emitWarning(`certificates are not renewed: ${String(error)}`, 'ComityWarning');
    }
  }
}

function look({ caFile, certFile, keyFile }: Tls): string {
  return [caFile, certFile, keyFile].map((path) => (path === undefined ? '' : files.state(path))).join(';');
}

function load({ ca, cert, key, caFile, certFile, keyFile }: Tls): Material {
  return {
    ca: caFile === undefined ? ca : files.read('tls.caFile', caFile),
    cert: certFile === undefined ? cert : files.read('tls.certFile', certFile),
    key: keyFile === undefined ? key : files.read('tls.keyFile', keyFile),
  };
}
