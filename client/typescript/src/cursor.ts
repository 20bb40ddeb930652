/** What a watch has received, and how much of it was handed out. No I/O. */

import type { WatchResponse } from './gen/comity/v1/state_pb.ts';
import { commit } from './model.ts';
import type { Entry, Event, Resync } from './model.ts';

export type Item = Event | Resync;

/**
 * Turns the messages of one stream after another into items, each of them once.
 *
 * `revision` is a bookmark: everything up to it was taken, of the history that has the `epoch`. A new stream goes on after it,
 * so it sends a commit again from its start if the stream before broke inside of it; what was taken of that commit is then
 * left out.
 */
export class Cursor {
  revision: bigint;
  epoch: string;
  #pending: { item: Item; bookmark: bigint }[] = []; // each with the bookmark once it is taken
  #taken = 0; // of those
  #sent: bigint; // the bookmark once all is taken
  #inside = 0n; // the revision of the commit that a message ended inside of
  #queued = 0; // how many of that commit's events were queued
  #seen = 0; // how many of them the present stream has sent

  constructor(revision: bigint, epoch = '') {
    this.revision = revision;
    this.epoch = epoch;
    this.#sent = revision;
  }

  take(): Item | undefined {
    const next = this.#pending[this.#taken];
    if (!next) return undefined;
    this.#taken++;
    this.revision = next.bookmark;
    if (next.item.type === 'resync') this.epoch = next.item.epoch;
    this.#settle();
    return next.item;
  }

  /** A new stream begins. What was received is still to be taken. */
  begin(): void {
    this.#seen = 0;
  }

  /** The stream that began goes on from this state, whatever was received before. */
  resync(revision: bigint, entries: readonly Entry[], epoch: string): void {
    this.#inside = 0n;
    this.#sent = revision;
    this.#pending.push({ item: { type: 'resync', revision, epoch, entries }, bookmark: revision });
  }

  receive(response: WatchResponse): void {
    for (const message of response.commits) {
      const { revision, events } = commit(message);
      if (revision !== this.#inside) {
        this.#inside = revision;
        this.#queued = this.#seen = 0;
      }
      const fresh = events.slice(Math.max(0, this.#queued - this.#seen));
      this.#seen += events.length;
      this.#queued += fresh.length;
      fresh.forEach((item, place) => {
        const last = place === fresh.length - 1 && !message.partial;
        this.#pending.push({ item, bookmark: last ? revision : revision - 1n });
      });
    }
    if (response.revision > this.#sent) this.#sent = response.revision;
    this.#settle();
  }

  #settle(): void {
    if (this.#taken < this.#pending.length) return;
    this.#pending = [];
    this.#taken = 0;
    this.revision = this.#sent;
  }
}
