/** Naming revisions, returning to them, comparing them. */

import { int, text } from './arguments.ts';
import type { Int } from './arguments.ts';
import { answered, pageSize } from './base.ts';
import { CheckpointService } from './gen/comity/v1/checkpoint_pb.ts';
import { Leases } from './leases.ts';
import * as model from './model.ts';
import type { Checkpoint } from './model.ts';
import type { CallOptions, ListOptions, Ref, WriteOptions } from './options.ts';
import { Pages } from './pages.ts';

/** The calls about checkpoints, and those that `Leases` has. */
export class Checkpoints extends Leases {
  /** Name a revision (the newest, unless one is said), which keeps it readable. Rejects with AlreadyExists. */
  async checkpoint(
    name: string,
    options: WriteOptions & { revision?: Int | undefined; labels?: Record<string, string> | undefined } = {},
  ): Promise<Checkpoint> {
    const { checkpoint } = await this.write(
      CheckpointService.method.checkpoint,
      {
        name: text('name', name),
        revision: int('revision', options.revision ?? 0),
        labels: options.labels ?? {},
      },
      options,
    );
    return model.checkpoint(answered(checkpoint));
  }

  /** Rejects with NotFound. */
  async getCheckpoint(name: string, options: CallOptions = {}): Promise<Checkpoint> {
    const { method } = CheckpointService;
    const request = { name: text('name', name) };
    const { checkpoint } = await this.read(method.getCheckpoint, request, options);
    return model.checkpoint(answered(checkpoint));
  }

  /** The checkpoints in the order of their names; only those that have all of these labels. */
  checkpoints(options: CallOptions & { labels?: Record<string, string> | undefined } = {}): Pages<Checkpoint> {
    const { method } = CheckpointService;
    const labels = options.labels ?? {};
    const read = this.pages(method.listCheckpoints, (pageToken) => this.here({ labels, pageToken }), options);
    return new Pages(async function* () {
      for await (const page of read()) yield page.checkpoints.map(model.checkpoint);
    });
  }

  /** Delete the name. Rejects with NotFound. */
  async deleteCheckpoint(name: string, options: WriteOptions = {}): Promise<void> {
    const { method } = CheckpointService;
    const request = { name: text('name', name) };
    await this.write(method.deleteCheckpoint, request, options);
  }

  /** Make a prefix (by default: everything) equal to what it was, in one commit. ifRevision: of the namespace's newest. */
  async restore(
    ref: Ref,
    options: WriteOptions & {
      prefix?: string | undefined;
      dryRun?: boolean | undefined;
      ifRevision?: Int | undefined;
    } = {},
  ): Promise<model.RestoreResult> {
    const { ifRevision, dryRun = false } = options;
    const { revision, put, deleted, differences } = await this.write(
      CheckpointService.method.restore,
      {
        ref: refOf(ref),
        prefix: text('prefix', options.prefix ?? ''),
        dryRun,
        ...(ifRevision === undefined ? {} : { ifRevision: int('ifRevision', ifRevision) }),
      },
      options,
    );
    return { revision, put, deleted, differences: differences.map(model.difference) };
  }

  /** The keys that differ between a revision and another one (now, unless it is said). */
  diff(
    base: Ref,
    target?: Ref,
    options: Omit<ListOptions, 'revision'> & { prefix?: string | undefined } = {},
  ): Pages<model.Difference> {
    const request = {
      base: refOf(base),
      ...(target === undefined ? {} : { target: refOf(target) }),
      prefix: text('prefix', options.prefix ?? ''),
      pageSize: pageSize(options.pageSize),
      keysOnly: options.keysOnly ?? false,
    };
    const { method } = CheckpointService;
    const read = this.pages(method.diff, (pageToken) => this.here({ ...request, pageToken }), options);
    return new Pages(async function* () {
      for await (const { differences } of read()) yield differences.map(model.difference);
    });
  }
}

/** A revision as requests name it. */
export function refOf(ref: Ref) {
  if (typeof ref === 'object' && ref !== null) return refOf(ref.name);
  return typeof ref === 'string'
    ? { ref: { case: 'checkpoint' as const, value: text('ref', ref) } }
    : { ref: { case: 'revision' as const, value: int('ref', ref) } };
}
