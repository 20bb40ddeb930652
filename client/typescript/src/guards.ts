/** How writes and keys name a lease. */

import { int } from './arguments.ts';
import type { Int } from './arguments.ts';
import { Lease } from './lease.ts';

/** A lease that must live for a write to apply. Its two numbers can be handed to another process, to write with. */
export interface LeaseGuard {
  readonly leaseId: Int;
  /** That it must have; 0n or undefined: not checked. */
  readonly fence?: Int | undefined;
}

/** What a write can be guarded by. */
export type Guard = Lease | LeaseGuard;

/** The lease that a key is to live by. */
export type OfLease = Lease | Int;

/** The id of a lease that is alive, as far as is known here. Throws LeaseLost, and RangeError for another namespace's. */
export function leaseId(lease: OfLease, namespace: string): bigint {
  if (!(lease instanceof Lease)) return int('lease', lease);
  held(lease, namespace);
  return lease.id;
}

export function guardOf(guard: Guard | undefined, namespace: string): { leaseId: bigint; fence: bigint } | undefined {
  if (guard === undefined) return undefined;
  if (guard instanceof Lease) {
    held(guard, namespace);
    return { leaseId: guard.id, fence: guard.fence };
  }
  return { leaseId: int('guard.leaseId', guard.leaseId), fence: int('guard.fence', guard.fence ?? 0n) };
}

function held(lease: Lease, namespace: string): void {
  if (lease.namespace !== namespace) {
    throw new RangeError(`lease ${lease.id} is of the namespace ${lease.namespace}, not of ${namespace}`);
  }
  lease.check();
}
