/** What all parts of a client have in common: its namespace, its author, and how it makes calls. */

import { create } from '@bufbuild/protobuf';
import type { DescMessage, DescMethodUnary, MessageInitShape, MessageShape } from '@bufbuild/protobuf';

import { int, MAX_WRITE_MS, text, timeout } from './arguments.ts';
import type { Calls } from './calls.ts';
import { LeaseLost } from './errors.ts';
import { WriteOptionsSchema } from './gen/comity/v1/types_pb.ts';
import { guardOf } from './guards.ts';
import type { Keeper } from './keeper.ts';
import type { CallOptions, ClientOptions, WriteOptions } from './options.ts';
import { pages } from './pages.ts';
import type { Numbered, Writer } from './requestIds.ts';

/** What the parts of a client share. */
export interface Shared {
  readonly calls: Calls;
  readonly writer: Writer;
  readonly keeper: Keeper;
}

type Init<Desc extends DescMessage> = MessageInitShape<Desc>;

/** A client without the calls that it offers: those are added by what derives from it, a service each. */
export class Base implements Disposable {
  readonly namespace: string;
  readonly author: string;
  readonly timeoutMs: number;
  protected readonly shared: Shared;

  constructor(shared: Shared, options: { namespace: string; author: string; timeoutMs: number }) {
    this.shared = shared;
    this.namespace = text('namespace', options.namespace);
    this.author = text('author', options.author);
    this.timeoutMs = timeout(options.timeoutMs);
  }

  /** Where the server is, as it was said to `connect`. */
  get address(): string {
    return this.shared.calls.channels.address;
  }

  /** A client for another namespace, author or timeout, on the same connections. Close one of them only. */
  withOptions(options: ClientOptions): this {
    const Kind = this.constructor as new (...given: ConstructorParameters<typeof Base>) => this;
    return new Kind(this.shared, {
      namespace: options.namespace ?? this.namespace,
      author: options.author ?? this.author,
      timeoutMs: options.timeoutMs ?? this.timeoutMs,
    });
  }

  /** Close the connections; end the calls and watches that use them. Leases are not revoked: each lives for what it has left. */
  close(): void {
    this.shared.calls.channels.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  protected timeout(options: { timeoutMs?: number | undefined }): number {
    return options.timeoutMs === undefined ? this.timeoutMs : timeout(options.timeoutMs);
  }

  protected here<Fields extends object>(fields: Fields): Fields & { namespace: string } {
    return { ...fields, namespace: this.namespace };
  }

  protected read<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    fields: Init<I>,
    options: CallOptions,
  ): Promise<MessageShape<O>> {
    const request = create(method.input, this.here(fields as object) as unknown as Init<I>);
    return this.shared.calls.unary(method, () => request, this.timeout(options), options.signal);
  }

  protected pages<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: (pageToken: string) => Init<I>,
    options: CallOptions,
  ) {
    const timeoutMs = this.timeout(options);
    const read = (pageToken: string) => {
      const message = create(method.input, request(pageToken));
      type Page = MessageShape<O> & { nextPageToken: string };
      return this.shared.calls.unary(method, () => message, timeoutMs, options.signal) as Promise<Page>;
    };
    return () => pages(read);
  }

  /** Call with a request id (a new one unless given), the author, the message and the guard. */
  protected async write<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    fields: Init<I>,
    options: WriteOptions,
  ): Promise<MessageShape<O>> {
    const { calls, writer, keeper } = this.shared;
    const timeoutMs = Math.min(this.timeout(options), MAX_WRITE_MS);
    const guard = guardOf(options.guard, this.namespace);
    const message = text('message', options.message ?? '');
    const send = (id: () => Numbered) => {
      const request = () => {
        const said = create(WriteOptionsSchema, {
          requestId: id(),
          author: this.author,
          message,
          ...(guard ? { guard } : {}),
        });
        return create(method.input, { ...this.here(fields as object), options: said } as unknown as Init<I>);
      };
      return calls.unary(method, request, timeoutMs, options.signal);
    };
    try {
      if (!options.requestId) return await writer.use(send);
      const client = text('requestId.client', options.requestId.client);
      const sequence = int('requestId.sequence', options.requestId.sequence);
      const awaited = int('requestId.awaited', options.requestId.awaited ?? 0n);
      return await send(() => ({ client, sequence, awaited }));
    } catch (error) {
      // Whoever holds the lease is told.
      if (error instanceof LeaseLost && guard) keeper.ended(this.namespace, guard.leaseId);
      throw error;
    }
  }
}

/** A size of pages as requests name it. */
export function pageSize(value: number | undefined): number {
  const size = int('pageSize', value ?? 0);
  if (size < 0n || size > 2n ** 31n - 1n) throw new RangeError('pageSize is a number from 0 to 2^31-1');
  return Number(size);
}

/** What an answer must have. */
export function answered<T>(part: T | undefined): T {
  if (part === undefined) throw new TypeError('the server left out what it was asked for');
  return part;
}
