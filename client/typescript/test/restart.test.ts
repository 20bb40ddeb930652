/** What becomes of a client whose server is killed, and started again on the same file. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { client, control, next, stops } from './servers.ts';

test(
  'a server is killed under a load of writes: none is lost, none is doubled, and a watch has no gap',
  stops,
  async () => {
    const address = await control('start');
    using state = client({ address, timeoutMs: 30_000 });
    await using watch = state.watch({ prefix: 'n/' });
    await watch.ready();
    const lease = await state.lease(30_000);
    await state.put('held', 1, { lease });

    let written = 0;
    let goOn = true;
    const write = async (name: string) => {
      for (let count = 1; goOn || count < 3; count++) {
        const { value } = await state.increment(`n/${name}`);
        assert.equal(value, BigInt(count)); // each was done once
        written++;
      }
    };
    const writing = ['a', 'b', 'c'].map(write);
    const events: bigint[] = [];
    const values: Record<string, unknown[]> = {};
    const see = async (upTo: () => number): Promise<void> => {
      while (events.length < upTo()) {
        const event = await next(watch);
        assert(event.type === 'put');
        events.push(event.revision);
        (values[event.key] ??= []).push(event.entry.value);
      }
    };
    await see(() => 20);
    await control('kill');
    await control('start');
    const after = events.length + 20;
    await see(() => after);
    goOn = false;
    await Promise.all(writing);
    await see(() => written);
    for (const seen of Object.values(values)) {
      const inOrder = Array.from(seen, (_, place) => place + 1);
      assert.deepEqual(seen, inOrder);
    }
    const ascending = events.toSorted((a, b) => Number(a - b));
    assert.deepEqual(events, ascending);
    assert.equal(new Set(events).size, written);
    const counts = (await state.list<number>('n/').all()).map(({ value }) => value);
    const sum = counts.reduce((a, b) => a + b, 0);
    assert.equal(sum, written);
    assert(lease.alive); // and was renewed by the new one
    await state.put('held', 2, { guard: lease });
    await lease.revoke();
  },
);
