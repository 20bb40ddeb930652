/** Connections to the servers: made when first used, one an address. The one place that knows the stubs of gRPC. */

import { Client, connectivityState, credentials, Metadata } from '@grpc/grpc-js';
import type { ChannelCredentials, ClientDuplexStream, ClientReadableStream } from '@grpc/grpc-js';
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import type {
  DescMessage,
  DescMethod,
  DescMethodBiDiStreaming,
  DescMethodServerStreaming,
  DescMethodUnary,
  MessageShape,
} from '@bufbuild/protobuf';

import type { Access } from './access.ts';
import { targets } from './addresses.ts';
import { channelOptions } from './credentials.ts';
import { DeadlineExceeded, Unauthenticated, Unavailable } from './errors.ts';
import { patient } from './patience.ts';
import { Peer } from './peer.ts';
import { now, within } from './retry.ts';
import { ask } from './tokens.ts';
import { UNREACHABLE } from './unreachable.ts';

const CONNECT_MS = 2_000; // that a call waits for a connection
const STUCK_MS = 20_000; // after which an attempt to connect is given up, as gRPC elsewhere does; grpc-js never does
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

/** A stream that was opened, and the token that it bears: whether another one would do better, `hasNewToken` tells. */
export interface Opened<Stream> {
  readonly stream: Stream;
  readonly token: string | undefined;
}

/** A channel to one address. */
export class Connection {
  readonly #access: Access;
  readonly #client: Client;
  readonly #credentials: ChannelCredentials | undefined;
  readonly #peer: Peer;
  #connecting: number | undefined; // since when, by `now`, if no state but that was seen since

  /** attempt: 0 shares what connects other clients of the process; another number, what those of that number have. */
  constructor(target: string, access: Access, attempt: number) {
    const { certificates } = access;
    this.#access = access;
    this.#peer = new Peer(target, certificates);
    this.#credentials = certificates?.credentials;
    const options = { ...OPTIONS, ...channelOptions(target, certificates?.tls), 'comity.attempt': attempt };
    this.#client = new Client(target, this.#credentials ?? patient(credentials.createInsecure()), options);
  }

  get address(): string {
    return this.#peer.address;
  }

  /** The error for what a call or a stream of it failed with. */
  error(failure: unknown): unknown {
    return this.#peer.error(failure);
  }

  /**
   * Call once, and once more with a new token if the server has refused an old one, with an end at `deadline` by `now`.
   * Throws ComityError, and what the signal's reason is.
   */
  async unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageShape<I>,
    deadline: number,
    signal?: AbortSignal,
  ): Promise<MessageShape<O>> {
    const token = await this.#ready(deadline, signal);
    try {
      return await this.#call(method, request, token, deadline, signal);
    } catch (error) {
      if (!(error instanceof Unauthenticated)) throw error;
      const renewed = await this.#ask(deadline, signal);
      if (renewed === token) throw error;
      return await this.#call(method, request, renewed, deadline, signal);
    }
  }

  /** Open a stream of answers, without a deadline. It fails as gRPC says: see `error`. */
  async serverStream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: MessageShape<I>,
    deadline: number,
    signal?: AbortSignal,
  ): Promise<Opened<ClientReadableStream<MessageShape<O>>>> {
    const token = await this.#ready(deadline, signal);
    const stream = this.#client.makeServerStreamRequest(
      path(method),
      (message: MessageShape<I>) => bytes(method.input, message),
      (data) => parsed(method.output, data),
      request,
      bearing(token),
    );
    return { stream, token };
  }

  /** Open a stream in both directions, as of `serverStream`. */
  async bidiStream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodBiDiStreaming<I, O>,
    deadline: number,
    signal?: AbortSignal,
  ): Promise<Opened<ClientDuplexStream<MessageShape<I>, MessageShape<O>>>> {
    const token = await this.#ready(deadline, signal);
    const stream = this.#client.makeBidiStreamRequest(
      path(method),
      (message: MessageShape<I>) => bytes(method.input, message),
      (data) => parsed(method.output, data),
      bearing(token),
    );
    return { stream, token };
  }

  /** Whether calls bear another token now than one that the server refused. */
  async hasNewToken(since: string | undefined, signal?: AbortSignal): Promise<boolean> {
    return (await this.#ask(now() + CONNECT_MS, signal)) !== since;
  }

  /** Whether the certificates are others now. */
  get isOutdated(): boolean {
    return this.#access.certificates?.credentials !== this.#credentials;
  }

  /** Whether it has been connecting for so long that nothing will come of it. */
  get isStuck(): boolean {
    return this.#connecting !== undefined && now() - this.#connecting >= STUCK_MS;
  }

  close(): void {
    this.#client.close();
  }

  #call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageShape<I>,
    token: string | undefined,
    deadline: number,
    signal?: AbortSignal,
  ): Promise<MessageShape<O>> {
    return new Promise((resolve, reject) => {
      const call = this.#client.makeUnaryRequest(
        path(method),
        (message: MessageShape<I>) => bytes(method.input, message),
        (data) => parsed(method.output, data),
        request,
        bearing(token),
        { deadline: Date.now() + Math.max(0, deadline - now()) },
        (failure, answer) => {
          signal?.removeEventListener('abort', cancel);
          if (signal?.aborted) reject(signal.reason);
          else if (failure || !answer) reject(this.error(failure));
          else resolve(answer);
        },
      );
      const cancel = () => call.cancel();
      signal?.addEventListener('abort', cancel, { once: true });
    });
  }

  /** What to call with, once there is a connection, or it is known that there will be none. */
  async #ready(deadline: number, signal?: AbortSignal): Promise<string | undefined> {
    signal?.throwIfAborted();
    const token = await this.#ask(deadline, signal);
    const until = now() + Math.min(CONNECT_MS, Math.max(0, deadline - now()));
    for (;;) {
      const state = this.#state();
      // A call that is made where connecting has failed says at once why.
      if (state === connectivityState.READY || state === connectivityState.TRANSIENT_FAILURE) return token;
      if (state === connectivityState.SHUTDOWN) throw this.#silent(); // another took its place
      if (!(await within(this.#change(state, until), signal))) throw this.#silent();
    }
  }

  /** The token as it is now. */
  #ask(deadline: number, signal?: AbortSignal): Promise<string | undefined> {
    const { token } = this.#access;
    const late = () => new DeadlineExceeded('the function of the token did not answer in time');
    return within(ask(token), signal, deadline - now(), late);
  }

  #state(): connectivityState {
    const state = this.#client.getChannel().getConnectivityState(true);
    if (state === connectivityState.CONNECTING) this.#connecting ??= now();
    else this.#connecting = undefined;
    return state;
  }

  /** Whether another state than this one comes in time. */
  #change(state: connectivityState, until: number): Promise<boolean> {
    return new Promise((resolve) => {
      const end = Date.now() + Math.max(0, until - now());
      this.#client.getChannel().watchConnectivityState(state, end, (late) => resolve(!late));
    });
  }

  #silent(): Unavailable {
    return new Unavailable(`cannot reach ${this.address}: it does not answer`, { reason: UNREACHABLE });
  }
}

/** The connections of a client and of all that share them. Stays at one address until that one fails. */
export class Channels {
  readonly #access: Access;
  readonly #targets: string[];
  readonly #connections = new Map<number, Connection>();
  readonly #closing = new AbortController();
  #stuck = 0; // how many were given up since they did not come to connect
  #place = 0; // of the target that answered last, or is to be tried next

  constructor(access: Access) {
    this.#access = access;
    this.#targets = targets(access.address);
  }

  /** Where the servers are, as it was said. */
  get address(): string {
    return this.#access.address;
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
      connection = new Connection(this.#targets[place] as string, this.#access, this.#stuck);
      this.#connections.set(place, connection);
    }
    return connection;
  }

  /**
   * The connection is of no use now: others are to try the next address; and if the certificates are others now, are to
   * connect by these. Only the first to find out moves on.
   */
  failed(connection: Connection): void {
    const place = this.#place;
    if (this.#connections.get(place) === connection) this.#place = (place + 1) % this.#targets.length;
    if (connection.isStuck) this.#stuck++;
    else if (!connection.isOutdated) return;
    for (const [at, known] of this.#connections) if (known === connection) this.#connections.delete(at);
    connection.close();
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

/** Says who calls. */
function bearing(token: string | undefined): Metadata {
  const metadata = new Metadata();
  if (token !== undefined) metadata.set('authorization', `Bearer ${token}`);
  return metadata;
}

function path(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}
