/** Granting leases, and keeping them alive. */

import { duration, int } from './arguments.ts';
import type { Int } from './arguments.ts';
import { answered, Base } from './base.ts';
import { LeaseNotFound } from './errors.ts';
import { LeaseService } from './gen/comity/v1/lease_pb.ts';
import type { Lease as LeaseMessage } from './gen/comity/v1/lease_pb.ts';
import { Lease } from './lease.ts';
import * as model from './model.ts';
import type { CallOptions, WriteOptions } from './options.ts';
import { Pages } from './pages.ts';
import { now } from './retry.ts';
import { milliseconds } from './status.ts';

/** The calls about leases. */
export class Leases extends Base {
  /** Grant a lease of so many ms, and keep it alive until it is revoked or closed, or the client is closed. */
  async lease(ttlMs: number, options: WriteOptions = {}): Promise<Lease> {
    const asked = now(); // from here the ttl counts, so that its holder gives up before the server does
    const { lease } = await this.write(LeaseService.method.grantLease, { ttl: duration('ttlMs', ttlMs) }, options);
    return this.#keep(lease, asked, lease?.ttl ? milliseconds(lease.ttl) : 0);
  }

  /** Keep a lease alive that a put with a ttl made, or another process. */
  async keepAlive(id: Int, options: CallOptions = {}): Promise<Lease> {
    const leaseId = int('id', id);
    const asked = now();
    const { lease } = await this.read(LeaseService.method.getLease, { leaseId }, options);
    return this.#keep(lease, asked, lease?.remaining ? milliseconds(lease.remaining) : 0);
  }

  /** End a lease now, and delete its keys: how many. Rejects with LeaseNotFound if it has ended. */
  async revokeLease(id: Int, options: WriteOptions = {}): Promise<bigint> {
    const leaseId = int('id', id);
    const { method } = LeaseService;
    return (await this.write(method.revokeLease, { leaseId }, options)).deleted;
  }

  /** The leases of the namespace in the order of their ids. */
  leases(options: CallOptions = {}): Pages<model.LeaseInfo> {
    const read = this.pages(LeaseService.method.listLeases, (pageToken) => this.here({ pageToken }), options);
    return new Pages(async function* () {
      for await (const page of read()) yield page.leases.map(model.leaseInfo);
    });
  }

  #keep(granted: LeaseMessage | undefined, asked: number, livesMs: number): Lease {
    const { id, ttl } = answered(granted);
    const revoke = async (timeoutMs?: number) => {
      await this.revokeLease(id, { timeoutMs }).catch((error: unknown) => {
        if (!(error instanceof LeaseNotFound)) throw error;
      });
    };
    const { keeper } = this.shared;
    const lease = new Lease(this.namespace, id, ttl ? milliseconds(ttl) : 0, asked + livesMs, keeper, revoke);
    keeper.keep(lease);
    return lease;
  }
}
