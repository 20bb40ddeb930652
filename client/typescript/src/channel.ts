/** Connections to the servers: made when first used, one an address. The one place that knows the stubs of gRPC. */

import { Client, connectivityState } from '@grpc/grpc-js';
import type { ClientDuplexStream, ClientReadableStream, Metadata } from '@grpc/grpc-js';
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import type {
  DescMessage,
  DescMethod,
  DescMethodBiDiStreaming,
  DescMethodServerStreaming,
  DescMethodUnary,
  MessageShape,
} from '@bufbuild/protobuf';

import { plain, targets } from './addresses.ts';
import { channelCredentials, checked, identified, tlsOptions } from './credentials.ts';
import type { Tls, Token } from './credentials.ts';
import { Unavailable } from './errors.ts';
import { now } from './retry.ts';
import { errorFrom } from './status.ts';

const CONNECT_MS = 2_000; // that one attempt to connect may take
const OPTIONS = {
  // How large messages may be is the server's to say: it bounds what it takes, and what it sends.
  'grpc.max_receive_message_length': -1,
  'grpc.max_send_message_length': -1,
  // A server that went without a word is noticed within 40 s; one that is only quiet is asked, and answers.
  'grpc.keepalive_time_ms': 30_000,
  'grpc.keepalive_timeout_ms': 10_000,
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 1_000,
  // Retries are this client's, since only it knows when they are safe; and nothing is to be looked up in DNS for them.
  'grpc.enable_retries': 0,
  'grpc.service_config_disable_resolution': 1,
};

/** A channel to one address. */
export class Connection {
  readonly address: string;
  readonly #client: Client;
  readonly #token: Token | undefined;

  constructor(target: string, tls: Tls | boolean | undefined, token: Token | undefined) {
    this.address = plain(target);
    this.#client = new Client(target, channelCredentials(tls), { ...OPTIONS, ...tlsOptions(tls) });
    this.#token = token;
  }

  /** Call once, with an end at `deadline` by `now`. Throws ComityError, and what the signal's reason is. */
  async unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageShape<I>,
    deadline: number,
    signal?: AbortSignal,
  ): Promise<MessageShape<O>> {
    const metadata = await this.#ready(deadline, signal);
    return new Promise((resolve, reject) => {
      const call = this.#client.makeUnaryRequest(
        path(method),
        (message: MessageShape<I>) => bytes(method.input, message),
        (data) => parsed(method.output, data),
        request,
        metadata,
        { deadline: Date.now() + Math.max(0, deadline - now()) },
        (failure, answer) => {
          signal?.removeEventListener('abort', cancel);
          if (signal?.aborted) reject(signal.reason);
          else if (failure || !answer) reject(errorFrom(failure, this.address));
          else resolve(answer);
        },
      );
      const cancel = () => call.cancel();
      signal?.addEventListener('abort', cancel, { once: true });
    });
  }

  /** Open a stream of answers, without a deadline. It fails as gRPC says: see `errorFrom`. */
  async serverStream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: MessageShape<I>,
    deadline: number,
    signal?: AbortSignal,
  ): Promise<ClientReadableStream<MessageShape<O>>> {
    const metadata = await this.#ready(deadline, signal);
    return this.#client.makeServerStreamRequest(
      path(method),
      (message: MessageShape<I>) => bytes(method.input, message),
      (data) => parsed(method.output, data),
      request,
      metadata,
    );
  }

  /** Open a stream in both directions, as of `serverStream`. */
  async bidiStream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodBiDiStreaming<I, O>,
    deadline: number,
    signal?: AbortSignal,
  ): Promise<ClientDuplexStream<MessageShape<I>, MessageShape<O>>> {
    const metadata = await this.#ready(deadline, signal);
    return this.#client.makeBidiStreamRequest(
      path(method),
      (message: MessageShape<I>) => bytes(method.input, message),
      (data) => parsed(method.output, data),
      metadata,
    );
  }

  close(): void {
    this.#client.close();
  }

  /** What says who calls, once there is a connection, or it is known that there will be none. */
  async #ready(deadline: number, signal?: AbortSignal): Promise<Metadata> {
    signal?.throwIfAborted();
    const metadata = await identified(this.#token);
    signal?.throwIfAborted();
    const channel = this.#client.getChannel();
    const until = Date.now() + Math.min(CONNECT_MS, Math.max(0, deadline - now()));
    for (;;) {
      const state = channel.getConnectivityState(true);
      // A call that is made where connecting has failed says at once why.
      if (state === connectivityState.READY || state === connectivityState.TRANSIENT_FAILURE) return metadata;
      if (state === connectivityState.SHUTDOWN) throw new Error('the client is closed');
      const changed = await new Promise<boolean>((resolve) => {
        channel.watchConnectivityState(state, until, (late) => resolve(!late));
      });
      signal?.throwIfAborted();
      if (!changed) {
        throw new Unavailable(`cannot reach ${this.address}: it does not answer`, { reason: 'UNREACHABLE' });
      }
    }
  }
}

/** The connections of a client and of all that share them. Stays at one address until that one fails. */
export class Channels {
  readonly address: string;
  readonly #targets: string[];
  readonly #tls: Tls | boolean | undefined;
  readonly #token: Token | undefined;
  readonly #connections = new Map<number, Connection>();
  readonly #closing = new AbortController();
  #place = 0; // of the target that answered last, or is to be tried next

  constructor(address: string, tls: Tls | boolean | undefined, token: Token | undefined) {
    this.address = address;
    this.#targets = targets(address);
    this.#tls = tls;
    this.#token = token;
    if (typeof token !== 'function' && token !== undefined) checked(token);
    channelCredentials(tls); // what does not fit is said now
  }

  /** Fires when the client is closed. */
  get closing(): AbortSignal {
    return this.#closing.signal;
  }

  /** Throws Error if the client is closed. */
  connection(): Connection {
    if (this.closing.aborted) throw new Error('the client is closed');
    const place = this.#place;
    let connection = this.#connections.get(place);
    if (!connection) {
      connection = new Connection(this.#targets[place] as string, this.#tls, this.#token);
      this.#connections.set(place, connection);
    }
    return connection;
  }

  /** The connection is of no use now: others are to try the next address. Only the first to find out moves on. */
  failed(connection: Connection): void {
    if (this.#connections.get(this.#place) === connection) this.#place = (this.#place + 1) % this.#targets.length;
  }

  close(): void {
    this.#closing.abort(new Error('the client is closed'));
    for (const connection of this.#connections.values()) connection.close();
    this.#connections.clear();
  }
}

function bytes<Desc extends DescMessage>(schema: Desc, message: MessageShape<Desc>): Buffer {
  const made = toBinary(schema, message);
  return Buffer.from(made.buffer, made.byteOffset, made.byteLength);
}

/** Values in it are plain bytes, and no Buffers, which print and slice differently. */
function parsed<Desc extends DescMessage>(schema: Desc, data: Buffer): MessageShape<Desc> {
  return fromBinary(schema, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
}

function path(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}
