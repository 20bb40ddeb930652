/** Reading page by page. */

/** What is read page by page, when it is iterated over: `for await (const each of …)`, or `await ….all()`. */
export class Pages<T> implements AsyncIterable<T> {
  readonly #pages: () => AsyncGenerator<readonly T[]>;

  constructor(pages: () => AsyncGenerator<readonly T[]>) {
    this.#pages = pages;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    for await (const page of this.#pages()) yield* page;
  }

  async all(): Promise<T[]> {
    const all: T[] = [];
    for await (const page of this.#pages()) all.push(...page);
    return all;
  }
}

/** The same, of what all is as one revision has it. */
export class Listing<T> extends Pages<T> {
  readonly #shown: { revision?: bigint };

  constructor(pages: () => AsyncGenerator<{ revision: bigint; found: readonly T[] }>) {
    const shown: { revision?: bigint } = {};
    super(async function* () {
      for await (const { revision, found } of pages()) {
        shown.revision = revision;
        yield found;
      }
    });
    this.#shown = shown;
  }

  /** The revision that all pages show. Known once the first page was read: throws Error before. */
  get revision(): bigint {
    if (this.#shown.revision === undefined) throw new Error('the revision is known once the first page was read');
    return this.#shown.revision;
  }
}

/** The entries under a prefix, as one revision has them. */
export class EntryListing<T> extends Listing<T> {
  readonly #said: { epoch?: string };

  constructor(pages: () => AsyncGenerator<{ revision: bigint; epoch: string; found: readonly T[] }>) {
    const said: { epoch?: string } = {};
    super(async function* () {
      for await (const page of pages()) {
        said.epoch = page.epoch;
        yield page;
      }
    });
    this.#said = said;
  }

  /** Of the history that `revision` is of: a watch `from` the next one on is given it. Known as `revision` is. */
  get epoch(): string {
    if (this.#said.epoch === undefined) throw new Error('the epoch is known once the first page was read');
    return this.#said.epoch;
  }
}

/** Each page that `read` answers, until one names no other. */
export async function* pages<P extends { nextPageToken: string }>(
  read: (pageToken: string) => Promise<P>,
): AsyncGenerator<P, void, undefined> {
  let token = '';
  do {
    const page = await read(token);
    yield page;
    token = page.nextPageToken;
  } while (token);
}
