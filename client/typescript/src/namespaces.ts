/** Namespaces: what there is, branching, merging, forgetting. */

import { create } from '@bufbuild/protobuf';

import { int, text } from './arguments.ts';
import type { Int } from './arguments.ts';
import { answered, Base } from './base.ts';
import { Checkpoints, refOf } from './checkpoints.ts';
import {
  CompactRequestSchema,
  DeleteNamespaceRequestSchema,
  MergeStrategy,
  NamespaceService,
} from './gen/comity/v1/namespace_pb.ts';
import * as model from './model.ts';
import type { CallOptions, Ref, WriteOptions } from './options.ts';

const STRATEGIES = { fail: MergeStrategy.FAIL, ours: MergeStrategy.OURS, theirs: MergeStrategy.THEIRS } as const;

/** The calls about namespaces, and those that `Checkpoints` has. */
export class Namespaces extends Checkpoints {
  /** What is known of the namespace. Rejects with NotFound before its first write. */
  async describe(options: CallOptions = {}): Promise<model.NamespaceInfo> {
    const { method } = NamespaceService;
    const answer = await this.read(method.getNamespace, {}, options);
    return model.namespaceInfo(answered(answer.namespace));
  }

  /** A new namespace that starts as this one is, or was: a client for it. Nothing is copied. Rejects with AlreadyExists. */
  async fork(name: string, options: Omit<WriteOptions, 'guard'> & { ref?: Ref | undefined } = {}): Promise<this> {
    const { ref } = options;
    const request = { fork: text('name', name), ...(ref === undefined ? {} : { ref: refOf(ref) }) };
    await this.write(NamespaceService.method.fork, request, options);
    return this.withOptions({ namespace: name });
  }

  /** Bring what a fork changed since it was made into this namespace, as one commit. Conflicts are an answer, no error. */
  async merge(
    fork: string | Base,
    options: WriteOptions & { strategy?: keyof typeof STRATEGIES | undefined; dryRun?: boolean | undefined } = {},
  ): Promise<model.MergeResult> {
    const { strategy = 'fail', dryRun = false } = options;
    if (!Object.hasOwn(STRATEGIES, strategy)) throw new RangeError("strategy is 'fail', 'ours' or 'theirs'");
    const name = text('fork', fork instanceof Base ? fork.namespace : fork);
    const request = { fork: name, strategy: STRATEGIES[strategy], dryRun };
    const { method } = NamespaceService;
    const answer = await this.write(method.merge, request, options);
    const { merged, revision, put, deleted, conflictCount } = answer;
    const conflicts = answer.conflicts.map(({ key, base, ours, theirs, valuesOmitted }) => ({
      key,
      base: model.maybeEntry(base),
      ours: model.maybeEntry(ours),
      theirs: model.maybeEntry(theirs),
      valuesOmitted,
    }));
    return { merged, revision, put, deleted, conflicts, conflictCount };
  }

  /** Delete the namespace with its history. ifRevision: only if this is its newest revision. */
  async deleteNamespace(options: CallOptions & { ifRevision?: Int | undefined } = {}): Promise<void> {
    const { ifRevision } = options;
    const request = create(DeleteNamespaceRequestSchema, {
      namespace: this.namespace,
      ...(ifRevision === undefined ? {} : { ifRevision: int('ifRevision', ifRevision) }),
    });
    const { method } = NamespaceService;
    await this.shared.calls.once(method.deleteNamespace, request, this.timeout(options), options.signal);
  }

  /** Forget what is before a revision (the newest, unless one is said); the floor that there is now. */
  async compact(revision?: Int, options: CallOptions = {}): Promise<bigint> {
    const floor = revision === undefined ? 0n : int('revision', revision);
    if (revision !== undefined && floor === 0n) return (await this.describe(options)).floor; // to the server: the newest
    const request = create(CompactRequestSchema, { namespace: this.namespace, revision: floor });
    const { method } = NamespaceService;
    return (await this.shared.calls.once(method.compact, request, this.timeout(options), options.signal)).floor;
  }
}
