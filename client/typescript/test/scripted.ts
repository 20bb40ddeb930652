/** A server of gRPC that answers what a test tells it: what a real one says only now and then. */

import { once } from 'node:events';
import { createServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';

import { Metadata, Server, ServerCredentials, status } from '@grpc/grpc-js';
import type { ServerDuplexStream, ServerUnaryCall, ServerWritableStream, sendUnaryData } from '@grpc/grpc-js';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { DescMethod, DescService, Message } from '@bufbuild/protobuf';
import { anyPack } from '@bufbuild/protobuf/wkt';
import type { Any } from '@bufbuild/protobuf/wkt';

import { KeepAliveResponseSchema, LeaseService } from '../src/gen/comity/v1/lease_pb.ts';
import type { KeepAliveRequest } from '../src/gen/comity/v1/lease_pb.ts';
import { NamespaceService } from '../src/gen/comity/v1/namespace_pb.ts';
import { StateService, WatchResponseSchema } from '../src/gen/comity/v1/state_pb.ts';
import { ErrorInfoSchema, RetryInfoSchema } from '../src/gen/google/rpc/error_details_pb.ts';
import { StatusSchema } from '../src/gen/google/rpc/status_pb.ts';

const TTL = { seconds: 3n, nanos: 0 };

/** What a call fails with, as grpc-js takes and gives it. */
export type Failure = Error & { code: status; details: string; metadata: Metadata };

export function failure(code: status, details: string, packed?: Any[] | Uint8Array): Failure {
  const metadata = new Metadata();
  const trailer = Array.isArray(packed) ? toBinary(StatusSchema, create(StatusSchema, { details: packed })) : packed;
  if (trailer) metadata.set('grpc-status-details-bin', Buffer.from(trailer));
  return Object.assign(new Error(details), { code, details, metadata });
}

/** What a server of Comity refuses with. */
export function refusal(code: status, reason: string, retryAfterMs?: number, metadata = {}): Failure {
  const details = [anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { domain: 'comity', reason, metadata }))];
  if (retryAfterMs !== undefined) {
    const retryDelay = { seconds: BigInt(Math.floor(retryAfterMs / 1_000)), nanos: (retryAfterMs % 1_000) * 1_000_000 };
    details.push(anyPack(RetryInfoSchema, create(RetryInfoSchema, { retryDelay })));
  }
  return failure(code, reason.toLowerCase(), details);
}

/** Answers a call with an empty message, a watch with that it is open; the next call with the next failure. */
export class Scripted implements Disposable {
  readonly address: string;
  /** The calls that came: of which method, with which `authorization`, and when. */
  readonly calls: { method: string; bearer: string; at: number }[] = [];
  /** What the next calls fail with. */
  readonly failures: Failure[] = [];
  /** The leases that were renewed since the last failure. */
  readonly renewed: bigint[] = [];
  /** What each watch ends with once it is open; undefined: it stays. */
  watchesEnd: Failure | undefined;
  readonly #server: Server;

  private constructor(server: Server, port: number) {
    this.#server = server;
    this.address = `127.0.0.1:${port}`;
  }

  static async start(): Promise<Scripted> {
    const server = new Server();
    const port = await new Promise<number>((resolve, reject) => {
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) => {
        if (error) reject(error);
        else resolve(bound);
      });
    });
    const scripted = new Scripted(server, port);
    for (const service of [StateService, NamespaceService, LeaseService]) scripted.#serve(service);
    return scripted;
  }

  [Symbol.dispose](): void {
    this.#server.forceShutdown();
  }

  #serve(service: DescService): void {
    const definitions = Object.fromEntries(service.methods.map((method) => [method.name, definition(method)]));
    const handlers = service.methods.map((method) => {
      if (method.methodKind === 'server_streaming') return [method.name, this.#watch.bind(this, method)];
      if (method.methodKind === 'bidi_streaming') return [method.name, this.#converse.bind(this, method)];
      return [method.name, this.#answer.bind(this, method)];
    });
    this.#server.addService(definitions, Object.fromEntries(handlers));
  }

  /** What the call fails with. */
  #enter(method: DescMethod, metadata: Metadata): Failure | undefined {
    const bearer = String(metadata.get('authorization')[0] ?? '');
    this.calls.push({ method: method.name, bearer, at: performance.now() });
    return this.failures.shift();
  }

  #answer(method: DescMethod, call: ServerUnaryCall<Message, Message>, answer: sendUnaryData<Message>): void {
    const refused = this.#enter(method, call.metadata);
    const { leaseId: id } = call.request as Message & { leaseId?: bigint };
    const lease = { id: id ?? 0n, ttl: TTL, remaining: TTL };
    const fields = method === LeaseService.method.getLease ? { lease } : {};
    answer(refused ?? null, create(method.output, fields));
  }

  #watch(method: DescMethod, call: ServerWritableStream<Message, Message>): void {
    const refused = this.#enter(method, call.metadata);
    if (refused) {
      call.emit('error', refused);
      return;
    }
    call.write(create(WatchResponseSchema, { created: true, revision: 1n, epoch: 'e' }));
    const end = this.watchesEnd;
    if (!end) return;
    call.write(create(WatchResponseSchema, { revision: 1n }));
    setTimeout(() => call.emit('error', end), 5); // a client leaves what it has not read by then, and waits longer then
  }

  /** Failures are for lease 2. */
  #converse(method: DescMethod, call: ServerDuplexStream<Message, Message>): void {
    call.on('data', ({ namespace, leaseId }: KeepAliveRequest) => {
      const refused = leaseId === 2n && this.failures.length > 0 ? this.#enter(method, call.metadata) : undefined;
      if (refused) this.renewed.length = 0;
      else this.renewed.push(leaseId);
      if (refused) call.emit('error', refused);
      else call.write(create(KeepAliveResponseSchema, { namespace, leaseId, ttl: TTL }));
    });
    call.on('end', () => call.end());
  }
}

function definition(method: DescMethod) {
  return {
    path: `/${method.parent.typeName}/${method.name}`,
    requestStream: method.methodKind === 'bidi_streaming',
    responseStream: method.methodKind !== 'unary',
    requestSerialize: (message: Message) => Buffer.from(toBinary(method.input, message)),
    requestDeserialize: (data: Buffer) => fromBinary(method.input, data),
    responseSerialize: (message: Message) => Buffer.from(toBinary(method.output, message)),
    responseDeserialize: (data: Buffer) => fromBinary(method.output, data),
  };
}

/** The way to a server, which can be lost without a word: connections stay open, and nothing passes any more. */
export class Way implements Disposable {
  readonly address: string;
  lost = false;
  readonly #sockets = new Set<Socket>();
  readonly #close: () => void;

  private constructor(port: number, close: () => void) {
    this.address = `127.0.0.1:${port}`;
    this.#close = close;
  }

  /** to: HOST:PORT */
  static async open(to: string): Promise<Way> {
    const [host = '', port = ''] = to.split(':');
    const server = createServer((near) => {
      if (way.lost) {
        way.#keep(near);
        return;
      }
      const far = new (near.constructor as typeof Socket)().connect(Number(port), host);
      for (const [from, other] of [[near, far], [far, near]] as const) {
        way.#keep(from);
        from.on('data', (data) => void (way.lost || other.write(data)));
        from.on('close', () => void (way.lost || other.destroy()));
      }
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const way = new Way((server.address() as AddressInfo).port, () => server.close());
    return way;
  }

  [Symbol.dispose](): void {
    this.#close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.#sockets.delete(socket));
  }
}
