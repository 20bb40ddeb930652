// A program in another language, with nothing of Comity's but protos/: it uses the state as an agent would, and prints
// what it saw, one JSON object a line, for test_polyglot.py to check.
//
//   node program.mjs ADDRESS PROTOS NAMESPACE
//
// After it printed the step "your turn" it waits until somebody else writes the key poly/python, which the test does:
// run by hand, `comity put poly/python 1 --namespace NAMESPACE` lets it end.

import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';

import { connect, namespace, say, text } from './setup.mjs';

const deadline = () => ({ deadline: Date.now() + 20_000 });
const state = connect('StateService');
const namespaces = connect('NamespaceService');

// The details of an error are google.rpc messages, whose protos no package here brings: this is all that is read of them.
const rpc = protoLoader.fromJSON({
  nested: {
    Any: { fields: { type_url: { type: 'string', id: 1 }, value: { type: 'bytes', id: 2 } } },
    Status: {
      fields: {
        code: { type: 'int32', id: 1 },
        message: { type: 'string', id: 2 },
        details: { rule: 'repeated', type: 'Any', id: 3 },
      },
    },
    ErrorInfo: {
      fields: {
        reason: { type: 'string', id: 1 },
        domain: { type: 'string', id: 2 },
        metadata: { keyType: 'string', type: 'string', id: 3 },
      },
    },
    Violation: { fields: { field: { type: 'string', id: 1 }, description: { type: 'string', id: 2 } } },
    BadRequest: { fields: { field_violations: { rule: 'repeated', type: 'Violation', id: 1 } } },
  },
}, { keepCase: true });

function describe(error) {
  const described = { code: grpc.status[error.code], message: error.details };
  for (const trailer of error.metadata.get('grpc-status-details-bin')) {
    const status = rpc.Status.deserialize(trailer);
    described.status_code = grpc.status[status.code];
    for (const { type_url, value } of status.details) {
      const name = type_url.replace('type.googleapis.com/google.rpc.', '');
      if (rpc[name]) described[name] = rpc[name].deserialize(value); // of others there may be more, with time
    }
  }
  return described;
}

function call(service, method, request) {
  return new Promise((resolve, reject) => {
    const message = { namespace, ...request };
    service[method](message, deadline(), (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

async function refused(step, method, request) {
  try {
    say(step, { answered: await call(state, method, request) });
  } catch (error) {
    say(step, describe(error));
  }
}

// Prints the events under a prefix until one of the last key came. Resolves to what waits for that, once it is live.
function watch(prefix, last) {
  const stream = state.watch({ namespace, prefix, previous: true });
  return new Promise((live, failed) => {
    const done = new Promise((resolve, reject) => {
      stream.on('error', (error) => {
        if (error.code === grpc.status.CANCELLED) return resolve();
        failed(error);
        return reject(error);
      });
      stream.on('data', (message) => {
        if (message.created) {
          say('created', { revision: message.revision, epoch: message.epoch, commits: message.commits?.length ?? 0 });
          live({ done: () => done });
        }
        for (const commit of message.commits ?? []) {
          for (const event of commit.events) {
            say('event', { revision: commit.revision, author: commit.author ?? '', ...event });
            if (event.entry.key === last) stream.cancel();
          }
        }
      });
    });
  });
}

await new Promise((resolve, reject) => {
  state.waitForReady(deadline().deadline, (error) => (error ? reject(error) : resolve()));
});

say('absent', await call(state, 'get', { key: 'poly/greeting' }));
const greeting = { key: 'poly/greeting', value: text('Grüße, 世界'), content_type: 'text/plain' };
const options = { request_id: { client: 'node', sequence: '1' }, author: 'node' };
say('put', await call(state, 'put', { ...greeting, if_version: 0, options }));
say('repeat', await call(state, 'put', { ...greeting, if_version: 0, options })); // by its request id the same write
say('get', await call(state, 'get', { key: 'poly/greeting' }));
await refused('conflict', 'put', { ...greeting, if_version: 0 });
await refused('invalid', 'put', { key: '', value: text('x') });
await refused('future', 'get', { key: 'poly/greeting', revision: '9007199254740993' });

const watching = await watch('poly/', 'poly/python');
say('transact', await call(state, 'transact', {
  conditions: [{ key: 'poly/greeting', version: '1' }, { prefix: 'poly/', unchanged_since: '1' }],
  then: [
    { increment: { key: 'poly/count', delta: '9007199254740991' } },
    { put: { key: 'poly/greeting', value: text('hello'), return_previous: true } },
    { get: { key: 'poly/count' } },
    { list: { prefix: 'poly/', keys_only: true } },
  ],
  options: { author: 'node' },
}));
say('lost', await call(state, 'transact', {
  conditions: [{ key: 'poly/greeting', version: '1' }, { key: 'poly/none', exists: true }],
  then: [{ delete: { prefix: '' } }],
}));
say('delete', await call(state, 'delete', { key: 'poly/count', return_previous: true }));

say('your turn', {}); // the writer in Python writes poly/python, which this program has never heard of otherwise
await watching.done();

const keys = [];
let token = '';
do {
  const page = await call(state, 'list', { prefix: 'poly/', page_size: 1, page_token: token });
  keys.push(...(page.entries ?? []).map((entry) => entry.key));
  token = page.next_page_token ?? '';
} while (token);
say('list', { keys });
const history = await call(state, 'history', { order: 'HISTORY_ORDER_OLDEST_FIRST' });
say('history', { authors: history.commits.map((commit) => commit.author ?? ''), floor: history.floor ?? '0' });
say('namespace', await call(namespaces, 'getNamespace', {}));
state.close();
namespaces.close();
