// What each program here begins with: stubs made of protos/ as it runs, and how it says what it saw.
//
//   node PROGRAM.mjs ADDRESS PROTOS NAMESPACE

import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';

const [address, protos, name] = process.argv.slice(2);

const loaded = protoLoader.loadSync(['state', 'namespace', 'lease'].map((each) => `comity/v1/${each}.proto`), {
  includeDirs: [protos],
  keepCase: true,
  longs: String, // int64 is more than a number holds here
  enums: String,
  oneofs: true,
});
const { v1 } = grpc.loadPackageDefinition(loaded).comity;

export const namespace = name;
export const connect = (service) => new v1[service](address, grpc.credentials.createInsecure());
export const say = (step, what) => console.log(JSON.stringify({ step, ...what }));
export const text = (value) => Buffer.from(value, 'utf8');
