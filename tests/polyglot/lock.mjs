// A lock in another language, written from docs/recipes.md with nothing of Comity's but protos/. It counts up under the
// lock together with whoever else does, and prints what it saw, one JSON object a line, for test_polyglot.py to check.
//
//   node lock.mjs ADDRESS PROTOS NAMESPACE
//
// At the steps "held" it waits: at the first until somebody stands in line behind it, at the second, once the other one has
// counted as far, until its lease ends.

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

import grpc from '@grpc/grpc-js';

import { connect, namespace, say, text } from './setup.mjs';

const ROUNDS = 20;
const TTL = 5; // seconds
const state = connect('StateService');

function call(service, method, request) {
  return new Promise((resolve, reject) => {
    const options = { deadline: Date.now() + 20_000 };
    service[method]({ namespace, ...request }, options, (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

// Leases that are kept alive, all on one stream.
class Leases {
  constructor(service) {
    this.held = new Map(); // who is told of the end, by ids
    this.stream = service.keepAlive();
    this.stream.on('error', (error) => error.code !== grpc.status.CANCELLED && this.held.forEach((lost) => lost()));
    this.stream.on('data', ({ lease_id, ttl }) => {
      if (Number(ttl?.seconds ?? 0) || ttl?.nanos) return;
      this.held.get(lease_id)?.();
      this.held.delete(lease_id);
    });
    this.timer = setInterval(() => this.held.forEach((_, id) => this.renew(id)), (TTL * 1000) / 3);
  }

  // Resolves when the lease has ended.
  keep(id) {
    const lost = new Promise((resolve) => this.held.set(id, resolve));
    this.renew(id);
    return lost;
  }

  renew(id) {
    this.stream.write({ namespace, lease_id: id });
  }

  close() {
    clearInterval(this.timer);
    this.stream.cancel();
  }
}

class Lock {
  constructor(name, leases, forkRevision) {
    this.prefix = `locks/${name}/`;
    this.leases = leases;
    this.forkRevision = BigInt(forkRevision);
  }

  // Resolves to the fence, once it is held.
  async acquire() {
    this.key = this.prefix + randomUUID();
    const put = { key: this.key, value: text('{"owner":"node"}'), content_type: 'application/json', ttl: { seconds: TTL } };
    const joined = await call(state, 'transact', { then: [{ put }, { list: { prefix: this.prefix, keys_only: true } }] });
    this.fence = joined.results[0].put.lease_id;
    this.lost = this.leases.keep(this.fence);
    let { entries } = joined.results[1].list;
    let { revision } = joined;
    for (;;) {
      const line = (entries ?? []).filter((each) => BigInt(each.lease_id ?? 0) && BigInt(each.mod_revision) > this.forkRevision);
      if (!line.some((each) => each.key === this.key)) throw new Error('the lease has ended in line');
      const before = line.filter((each) => BigInt(each.create_revision) < BigInt(joined.revision));
      if (!before.length) return this.fence;
      const last = before.reduce((a, b) => (BigInt(a.create_revision) > BigInt(b.create_revision) ? a : b));
      await this.deleted(last.key, revision);
      ({ entries, revision } = await call(state, 'list', { prefix: this.prefix, keys_only: true }));
    }
  }

  // Resolves once the key was deleted after the revision.
  deleted(key, revision) {
    return new Promise((resolve, reject) => {
      const stream = state.watch({ namespace, key, from_revision: String(BigInt(revision) + 1n) });
      stream.on('error', (error) => (error.code === grpc.status.CANCELLED ? resolve() : reject(error)));
      stream.on('data', ({ commits }) => {
        const events = (commits ?? []).flatMap((commit) => commit.events);
        if (events.some((event) => event.type === 'EVENT_TYPE_DELETE')) stream.cancel();
      });
    });
  }

  async release() {
    this.leases.held.delete(this.fence);
    await call(state, 'delete', { key: this.key });
  }

  // Writes only while it is held.
  put(key, value) {
    const options = { guard: { lease_id: this.fence, fence: this.fence }, author: 'node' };
    return call(state, 'put', { key, value: text(value), content_type: 'application/json', options });
  }
}

const counted = async () => Number((await call(state, 'get', { key: 'count' })).entry.value);

await call(state, 'put', { key: 'count', value: text('0'), content_type: 'application/json' });
const described = await call(connect('NamespaceService'), 'getNamespace', {});
const leases = new Leases(connect('LeaseService'));
const lock = new Lock('shared', leases, described.namespace.fork_revision ?? 0);
const fences = [];
for (let round = 0; round < ROUNDS; round++) {
  fences.push(await lock.acquire());
  if (!round) {
    say('held', {});
    while ((await call(state, 'list', { prefix: lock.prefix })).entries.length < 2) await sleep(5);
  }
  await lock.put('count', String((await counted()) + 1));
  await lock.release();
}
say('counted', { fences });

while ((await counted()) < 2 * ROUNDS) await sleep(5);
say('held', { fence: await lock.acquire() });
await lock.lost;
try {
  say('lost', { answered: await lock.put('count', '0') });
} catch (error) {
  say('lost', { code: grpc.status[error.code] });
}
leases.close();
state.close();
