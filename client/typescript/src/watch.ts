/** Watching a key or a prefix: a stream that outlives its connections. */

import type { ClientReadableStream } from '@grpc/grpc-js';
import { create } from '@bufbuild/protobuf';
import type { MessageInitShape } from '@bufbuild/protobuf';

import type { Calls } from './calls.ts';
import type { Connection } from './channel.ts';
import { Cursor } from './cursor.ts';
import type { Item } from './cursor.ts';
import { Compacted, DeadlineExceeded, OutOfRange, RateLimited, Unauthenticated, Unavailable } from './errors.ts';
import { StateService, WatchRequestSchema } from './gen/comity/v1/state_pb.ts';
import type { WatchResponse } from './gen/comity/v1/state_pb.ts';
import type { Entry, Event, Resync } from './model.ts';
import { Backoff, Misfit, now, sleep } from './retry.ts';
import { isTransient, milliseconds } from './status.ts';

const SILENT_INTERVALS = 3; // after as many intervals without a word a stream is taken for dead

/** What a watch is made of. */
export interface Watching {
  readonly request: MessageInitShape<typeof WatchRequestSchema>;
  readonly fromRevision: bigint;
  /** Of the history that fromRevision is of; empty: not known. */
  readonly epoch: string;
  /** Begin with a Resync. */
  readonly initial: boolean;
  /** Where the history is gone begin with a Resync, instead of throwing Compacted. */
  readonly resync: boolean;
  readonly progressMs: number;
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
  /** The entries of what is watched, as a revision had them. */
  state(revision: bigint, signal: AbortSignal): Promise<readonly Entry[]>;
}

/**
 * The changes of a key or under a prefix, in order, without gaps, each once. Made by `Client.watch`.
 *
 * The stream is opened by the first use, and opened anew after every disconnect, from where it was. Where the history that
 * this needs is gone (it was compacted, the namespace was deleted, or a server that keeps its state in memory has started
 * again), a `Resync` with the whole present state comes, and then what follows it.
 *
 * It ends when its signal fires, by `return()` (which leaving a `for await` calls), and at the end of an `await using`.
 */
export class Watch<T = unknown> implements AsyncIterableIterator<Event<T> | Resync<T>, undefined>, AsyncDisposable {
  readonly #calls: Calls;
  readonly #watching: Watching;
  readonly #cursor: Cursor;
  readonly #stop = new AbortController();
  readonly #backoff = new Backoff();
  readonly #misfit = new Misfit();
  #listening = false; // to what may end it
  #stepping: Promise<void> | undefined;
  #stream: ClientReadableStream<WatchResponse> | undefined;
  #messages: AsyncIterator<WatchResponse> | undefined;
  #connection: Connection | undefined;
  #token: string | undefined; // that the stream bears
  #renewed = false; // a stream was opened since there is another token, and has said nothing yet
  #epoch = '';
  #intervalMs: number; // between two signs of life
  #live: bigint | undefined; // what the first stream said
  #giveUp: number | undefined; // when, unless there was a stream
  #refused: unknown; // what failed the last try before that
  #lost: boolean; // the next stream begins with a Resync, instead of at the bookmark

  constructor(calls: Calls, watching: Watching) {
    this.#calls = calls;
    this.#watching = watching;
    this.#cursor = new Cursor(watching.fromRevision > 0n ? watching.fromRevision - 1n : 0n, watching.epoch);
    this.#epoch = watching.epoch;
    this.#lost = watching.initial;
    this.#intervalMs = watching.progressMs;
  }

  /**
   * A bookmark: everything up to it was handed out, so that a watch `from` it + 1n, with its `epoch`, goes on elsewhere. Between
   * two events of one commit it stays below that commit. 0n until a watch from now on is ready.
   */
  get revision(): bigint {
    return this.#cursor.revision;
  }

  /**
   * Of the history that `revision` is of: store both, and a watch that goes on from them notices if the state was lost
   * meanwhile. Empty until a watch that was given none is ready, or has handed out its first Resync.
   */
  get epoch(): string {
    return this.#cursor.epoch;
  }

  /** Wait until the stream is open: the revision after which it shows every change. */
  async ready(): Promise<bigint> {
    while (this.#live === undefined) {
      if (this.#hasEnded()) throw new Error('the watch has ended');
      await this.#step();
    }
    return this.#live;
  }

  async next(): Promise<IteratorResult<Event<T> | Resync<T>, undefined>> {
    while (!this.#hasEnded()) {
      const value = this.#cursor.take() as Event<T> | Resync<T> | undefined;
      if (value) return { done: false, value };
      await this.#step();
    }
    return { done: true, value: undefined };
  }

  /** End the stream. Whoever waits for its next event sees it end. */
  async return(): Promise<IteratorResult<Event<T> | Resync<T>, undefined>> {
    this.#close();
    return { done: true, value: undefined };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#close();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  readonly #close = (): void => {
    this.#stop.abort();
    this.#hangUp();
    this.#listen(false);
  };

  /** The client is closed: nothing more comes, and who asks is told so. */
  readonly #shut = (): void => {
    this.#stop.abort(this.#calls.channels.closing.reason);
    this.#close();
  };

  /** Be told by the signals that end it, or no more: they may live for longer than it does. */
  #listen(whether: boolean): void {
    if (whether === this.#listening) return;
    this.#listening = whether;
    const { signal } = this.#watching;
    const { closing } = this.#calls.channels;
    if (whether) {
      signal?.addEventListener('abort', this.#close);
      closing.addEventListener('abort', this.#shut);
    } else {
      signal?.removeEventListener('abort', this.#close);
      closing.removeEventListener('abort', this.#shut);
    }
  }

  /** Throws Error if the client is closed. */
  #hasEnded(): boolean {
    const { closing } = this.#calls.channels;
    if (this.#watching.signal?.aborted) this.#close();
    if (closing.aborted) this.#shut();
    if (this.#stop.signal.reason === closing.reason) closing.throwIfAborted();
    return this.#stop.signal.aborted;
  }

  /** Open the stream, or read a message from it. All who wait at the same time wait for one step. */
  async #step(): Promise<void> {
    this.#stepping ??= this.#advance().finally(() => {
      this.#stepping = undefined;
    });
    await this.#stepping;
  }

  async #advance(): Promise<void> {
    this.#listen(true);
    try {
      if (this.#messages) {
        this.#cursor.receive(await this.#read());
        this.#backoff.reset();
        this.#renewed = false;
      } else {
        await this.#open();
      }
    } catch (error) {
      const connection = this.#connection;
      this.#hangUp();
      if (this.#stop.signal.aborted) return;
      try {
        await sleep(await this.#healing(error, connection), this.#stop.signal);
      } catch (failure) {
        if (this.#stop.signal.aborted) return;
        this.#listen(false);
        throw failure;
      }
    }
  }

  async #open(): Promise<void> {
    if (this.#live === undefined) this.#giveUp ??= now() + this.#watching.timeoutMs;
    const from = this.#lost ? 0n : this.#live === undefined ? this.#watching.fromRevision : this.#cursor.revision + 1n;
    const epoch = this.#lost ? '' : this.#epoch;
    const request = create(WatchRequestSchema, { ...this.#watching.request, fromRevision: from, epoch });
    const connection = (this.#connection = this.#calls.channels.connection());
    const stop = this.#stop.signal;
    const until = now() + this.#remaining();
    const { stream, token } = await connection.serverStream(StateService.method.watch, request, until, stop);
    this.#stream = stream;
    this.#token = token;
    if (stop.aborted) this.#hangUp();
    stop.throwIfAborted();
    this.#messages = (stream as AsyncIterable<WatchResponse>)[Symbol.asyncIterator]();
    const created = await this.#read();
    this.#cursor.begin();
    if (this.#lost) {
      // A state that began anew between the two calls broke the stream, and the next one finds another epoch. To the server
      // revision 0 would mean the newest; here it is the empty state.
      const entries = created.revision === 0n ? [] : await this.#watching.state(created.revision, stop);
      this.#cursor.resync(created.revision, entries, created.epoch);
    } else if (this.#live === undefined) {
      this.#cursor.receive(created);
      this.#cursor.epoch = created.epoch;
    }
    this.#epoch = created.epoch;
    this.#lost = false;
    if (this.#live === undefined) {
      this.#live = created.revision;
      this.#giveUp = this.#refused = undefined;
    }
  }

  async #read(): Promise<WatchResponse> {
    const stream = this.#stream;
    const connection = this.#connection;
    const silence = this.#intervalMs * SILENT_INTERVALS;
    const remaining = this.#remaining();
    let silent = false;
    const timer = setTimeout(
      () => {
        silent = true;
        stream?.cancel();
      },
      Math.max(0, Math.min(silence, remaining)),
    );
    try {
      const message = await this.#messages?.next();
      if (message && !message.done) {
        const told = message.value.progressInterval; // where it is not what was asked for
        this.#intervalMs = told ? milliseconds(told) : this.#watching.progressMs;
        return message.value;
      }
    } catch (failure) {
      if (!silent) throw connection?.error(failure) ?? failure;
    } finally {
      clearTimeout(timer);
    }
    if (!silent) throw new Unavailable('the server ended the stream');
    if (remaining < silence)
      throw new DeadlineExceeded(`no answer from ${connection?.address ?? ''} within ${this.#watching.timeoutMs} ms`);
    throw new Unavailable(`the server said nothing for ${silence} ms`);
  }

  /** Milliseconds until a new stream may heal the error. Throws it if none can. */
  async #healing(error: unknown, connection: Connection | undefined): Promise<number> {
    const gone = error instanceof Compacted || (error instanceof OutOfRange && this.#live !== undefined);
    if (gone && this.#watching.resync && !this.#lost) {
      this.#lost = true;
      return 0;
    }
    if (error instanceof Unauthenticated && connection && !this.#renewed) {
      this.#renewed = await connection.hasNewToken(this.#token, this.#stop.signal);
      if (this.#renewed) return 0;
    }
    const heals = (gone && this.#watching.resync) || isTransient(error) || error instanceof DeadlineExceeded;
    if (!heals) throw error;
    if (this.#live === undefined && this.#misfit.lasts(error)) {
      this.#giveUp = undefined;
      throw error;
    }
    if (connection && !(error instanceof RateLimited)) this.#calls.channels.failed(connection);
    const delay = this.#backoff.delay(this.#remaining(), error.retryAfterMs);
    if (delay === undefined) {
      const refused = this.#refused;
      this.#giveUp = this.#refused = undefined; // whoever asks again, tries again
      throw refused !== undefined && error instanceof DeadlineExceeded ? refused : error;
    }
    if (this.#live === undefined) this.#refused = error;
    return delay;
  }

  /** Milliseconds that are left to open the first stream; no end of them, once there was one. */
  #remaining(): number {
    return this.#giveUp === undefined ? Infinity : this.#giveUp - now();
  }

  #hangUp(): void {
    const stream = this.#stream;
    this.#stream = this.#messages = this.#connection = undefined;
    if (stream) {
      stream.on('error', () => undefined); // that it was cancelled
      stream.cancel();
    }
  }
}

export type { Item };
