/** Unary calls with a deadline and retries. */

import type { DescMessage, DescMethodUnary, MessageShape } from '@bufbuild/protobuf';

import type { Channels } from './channel.ts';
import { DeadlineExceeded, RateLimited, Unavailable } from './errors.ts';
import { now, Retry, sleep } from './retry.ts';
import { isTransient } from './status.ts';
import { TLS_FAILED, UNREACHABLE } from './unreachable.ts';

// Of a server that was not reached, or that did not take the request since it ends.
const REFUSED = new Set([UNREACHABLE, TLS_FAILED, 'DRAINING']);

/** Makes calls on the channels of a client. */
export class Calls {
  readonly channels: Channels;

  constructor(channels: Channels) {
    this.channels = channels;
  }

  /**
   * Call, and again while no server can be reached or it asks to wait, for `timeoutMs` in all. The request is asked for at
   * each try. Of a write it must have a request id, so that the server applies it once however often it is sent.
   */
  unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: () => MessageShape<I>,
    timeoutMs: number,
    signal?: AbortSignal,
  ): Promise<MessageShape<O>> {
    return this.#retried(method, request, timeoutMs, signal, () => true);
  }

  /** The same, but again only where nothing was done: for what must not be done twice and has no request id. */
  once<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageShape<I>,
    timeoutMs: number,
    signal?: AbortSignal,
  ): Promise<MessageShape<O>> {
    return this.#retried(method, () => request, timeoutMs, signal, isRefusal);
  }

  async #retried<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: () => MessageShape<I>,
    timeoutMs: number,
    signal: AbortSignal | undefined,
    mayRepeat: (error: unknown) => boolean,
  ): Promise<MessageShape<O>> {
    const { closing } = this.channels;
    const stop = signal ? AbortSignal.any([closing, signal]) : closing;
    const retry = new Retry(now() + timeoutMs);
    for (;;) {
      try {
        return await this.#attempt(method, request(), now() + retry.remaining(), stop);
      } catch (error) {
        stop.throwIfAborted();
        if (!mayRepeat(error)) throw error;
        await sleep(retry.delay(error), stop);
      }
    }
  }

  /** Call once, until a deadline by `now`. */
  async #attempt<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageShape<I>,
    deadline: number,
    signal: AbortSignal,
  ): Promise<MessageShape<O>> {
    const connection = this.channels.connection();
    try {
      return await connection.unary(method, request, deadline, signal);
    } catch (error) {
      const gone = (isTransient(error) && !(error instanceof RateLimited)) || error instanceof DeadlineExceeded;
      if (gone) this.channels.failed(connection);
      throw error;
    }
  }
}

/** Whether the server has said that it did nothing, or was not reached. */
function isRefusal(error: unknown): boolean {
  return error instanceof RateLimited || (error instanceof Unavailable && REFUSED.has(error.reason));
}
