// A client of pipelines in another language, written from docs/wire.md with nothing of Comity's but protos/. It prints
// what it saw, one JSON object a line, for test_polyglot.py to check.
//
//   node pipeline.mjs ADDRESS PROTOS NAMESPACE
//
// After it printed the step "restart" it goes on writing until its stream breaks, and then until all is answered: the
// server at ADDRESS has to go, in whatever way, and to come back with what it had.

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

import grpc from '@grpc/grpc-js';

import { connect, namespace, say, text } from './setup.mjs';

const OPERATIONS = 1000; // of a message
const MESSAGE_BYTES = 4 * 1024 * 1024;

class Pipeline {
  constructor(service, namespace) {
    this.service = service;
    this.namespace = namespace;
    this.client = randomUUID();
    this.next = 1n;
    this.unanswered = new Map(); // operations and who waits for them, by their ids, in the order of these
    this.queue = []; // those that have not been sent on this stream
    this.breaks = []; // what streams ended with
    this.repeated = 0;
    this.closed = false;
    this.open();
  }

  // Resolves to the result, whatever its code is.
  do(kind, fields) {
    const operation = { id: String(this.next++), kind: `PIPELINE_KIND_${kind}`, ...fields };
    return new Promise((resolve) => {
      this.unanswered.set(operation.id, { operation, resolve });
      this.queue.push(operation);
      this.flush();
    });
  }

  // Sends what there is. What comes while a message is being written is gathered for the next one.
  flush() {
    if (this.writing || !this.queue.length || !this.call) return;
    let count = 0;
    for (let bytes = 0; count < Math.min(this.queue.length, OPERATIONS); count++) {
      bytes += 100 + (this.queue[count].value?.length ?? 0);
      if (count && bytes > MESSAGE_BYTES) break;
    }
    const message = { operations: this.queue.splice(0, count), awaited: this.unanswered.keys().next().value };
    if (this.first) Object.assign(message, { namespace: this.namespace, client: this.client, author: 'node' });
    this.first = false;
    this.writing = true;
    const { call } = this;
    call.write(message, () => {
      if (call !== this.call) return;
      this.writing = false;
      this.flush();
    });
  }

  // Opens a stream, and sends once more what has no answer: under the ids that it had, before anything new.
  open() {
    const call = this.service.pipeline(new grpc.Metadata({ waitForReady: true }));
    this.call = call;
    this.first = true;
    this.writing = false;
    this.queue = [...this.unanswered.values()].map(({ operation }) => operation);
    this.repeated += this.queue.length;
    call.on('data', ({ results }) => {
      for (const result of results) {
        const waiting = this.unanswered.get(result.id);
        this.unanswered.delete(result.id);
        waiting.resolve(result);
      }
    });
    call.on('error', () => {}); // the status says it, too
    call.on('status', async ({ code, details }) => {
      if (this.closed) return;
      this.call = null;
      this.breaks.push({ code: grpc.status[code], details });
      if (this.breaks.length > 1) await sleep(50 + 100 * Math.random());
      this.open();
    });
    this.flush();
  }

  // Ends well, when all is answered.
  close() {
    this.closed = true;
    return new Promise((resolve) => {
      this.call.on('status', ({ code }) => resolve(grpc.status[code]));
      this.call.end();
    });
  }
}

const state = connect('StateService');
const pipeline = new Pipeline(state, namespace);

const steps = [
  ['CREATE', { key: 'poly/a', value: text('Grüße'), content_type: 'text/plain' }],
  ['GET', { key: 'poly/a' }],
  ['CREATE', { key: 'poly/a', value: text('again') }],
  ['PUT', { key: 'poly/a', value: text('more'), if_version: '1', return_previous: true, message: 'why' }],
  ['PUT', { key: 'poly/a', value: text('less'), if_version: '1' }],
  ['INCREMENT', { key: 'poly/n', delta: '9007199254740991' }],
  ['INCREMENT', { key: 'poly/n', delta: '1' }],
  ['INCREMENT', { key: 'poly/a', delta: '1' }],
  ['PUT', { key: '', value: text('x') }],
  ['LIST', { list: { prefix: 'poly/', page_size: 1 } }],
  ['TRANSACT', {
    transact: {
      conditions: [{ key: 'poly/a', version: '2' }],
      then: [{ put: { key: 'poly/b', value: text('b') } }, { list: { prefix: 'poly/', keys_only: true } }],
    },
  }],
  ['DELETE', { key: 'poly/n', return_previous: true }],
  ['GET', { key: 'poly/n' }],
  ['LIST', { list: { prefix: 'poly/' } }],
];
const results = await Promise.all(steps.map(([kind, fields]) => pipeline.do(kind, fields)));
say('mixed', { results });

// Increments of several keys, of which always some are under way, until the stream has broken; and once more.
const sums = ['s/1', 's/2', 's/3'].map((key) => ({ key, totals: [] }));
let breaks = 0;
async function increment(sum) {
  while (pipeline.breaks.length < breaks) {
    const { code, value } = await pipeline.do('INCREMENT', { key: sum.key, delta: '1' });
    if (code) throw new Error(`an increment was answered ${code}`);
    sum.totals.push(Number(value));
  }
}
for (const _ of ['killed', 'stopped']) {
  breaks = pipeline.breaks.length + 1;
  const writers = sums.flatMap((sum) => Array.from({ length: 20 }, () => increment(sum)));
  await pipeline.do('GET', { key: 's/1' });
  say('restart', {});
  await Promise.all(writers);
}
const reads = await Promise.all(sums.map(({ key }) => pipeline.do('GET', { key })));
const created = await pipeline.do('CREATE', { key: 'last' });
say('sums', {
  sums: sums.map(({ key, totals }, place) => ({
    key,
    done: totals.length,
    distinct: new Set(totals).size,
    most: Math.max(...totals),
    value: reads[place].entry.value.toString(),
  })),
  breaks: pipeline.breaks,
  repeated: pipeline.repeated,
  revision: created.revision,
});
say('end', { status: await pipeline.close() });
state.close();
