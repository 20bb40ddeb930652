/** Unary calls with a deadline and retries. */

import type { DescMessage, DescMethodUnary, MessageShape } from '@bufbuild/protobuf';

import type { Channels } from './channel.ts';
import { DeadlineExceeded, RateLimited, Unavailable } from './errors.ts';
import { now, Retry, sleep } from './retry.ts';
import { isTransient } from './status.ts';

const NOT_SENT = new Set(['UNREACHABLE', 'TLS_FAILED']);

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
  async unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: () => MessageShape<I>,
    timeoutMs: number,
    signal?: AbortSignal,
  ): Promise<MessageShape<O>> {
    const { closing } = this.channels;
    const stop = signal ? AbortSignal.any([closing, signal]) : closing;
    const retry = new Retry(now() + timeoutMs);
    for (;;) {
      try {
        return await this.attempt(method, request(), now() + retry.remaining(), stop);
      } catch (error) {
        stop.throwIfAborted();
        await sleep(retry.delay(error), stop);
      }
    }
  }

  /** Find a server that can be reached, and call it once: for what must not be done twice and has no request id. */
  async once<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageShape<I>,
    timeoutMs: number,
    signal?: AbortSignal,
  ): Promise<MessageShape<O>> {
    const { closing } = this.channels;
    const stop = signal ? AbortSignal.any([closing, signal]) : closing;
    const retry = new Retry(now() + timeoutMs);
    for (;;) {
      try {
        return await this.attempt(method, request, now() + retry.remaining(), stop);
      } catch (error) {
        stop.throwIfAborted();
        if (!(error instanceof Unavailable && NOT_SENT.has(error.reason))) throw error; // it may have been done
        await sleep(retry.delay(error), stop);
      }
    }
  }

  /** Call once, until a deadline by `now`. */
  async attempt<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageShape<I>,
    deadline: number,
    signal?: AbortSignal,
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
