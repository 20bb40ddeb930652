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
