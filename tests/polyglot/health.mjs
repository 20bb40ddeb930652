// A probe of health as grpc-health-probe and Kubernetes have it: one connection, one Check, a deadline for each, an exit
// code. It knows the health protocol alone, and prints what it was told.
//
//   node health.mjs ADDRESS SERVICE
//
// Exit codes: 0 SERVING, 2 no connection, 3 no answer or an error, 4 any other status.

import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';

const SECONDS = 5; // to connect, and then for the answer
const [address, service] = process.argv.slice(2);

const messages = {
  HealthCheckRequest: { fields: { service: { type: 'string', id: 1 } } },
  HealthCheckResponse: {
    fields: { status: { type: 'ServingStatus', id: 1 } },
    nested: { ServingStatus: { values: { UNKNOWN: 0, SERVING: 1, NOT_SERVING: 2, SERVICE_UNKNOWN: 3 } } },
  },
  Health: { methods: { Check: { requestType: 'HealthCheckRequest', responseType: 'HealthCheckResponse' } } },
};
const file = { nested: { grpc: { nested: { health: { nested: { v1: { nested: messages } } } } } } };
const { Health } = grpc.loadPackageDefinition(protoLoader.fromJSON(file, { enums: String })).grpc.health.v1;

const health = new Health(address, grpc.credentials.createInsecure(), { 'grpc.primary_user_agent': 'kube-probe/1.34' });
const soon = () => Date.now() + SECONDS * 1000;

function end(code, what) {
  console.log(JSON.stringify(what));
  health.close();
  process.exitCode = code;
}

health.waitForReady(soon(), (unreachable) => {
  if (unreachable) return end(2, { error: 'no connection' });
  health.check({ service }, { deadline: soon() }, (error, answer) => {
    if (error) end(3, { error: grpc.status[error.code] });
    else end(answer.status === 'SERVING' ? 0 : 4, { status: answer.status });
  });
});
