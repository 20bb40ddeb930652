/** What is told at once of a Node.js that is too old, in place of an error in the midst of a call. */

const OLDEST = 22;
const version = globalThis.process?.versions?.node;

if (version !== undefined && Number.parseInt(version, 10) < OLDEST) {
  throw new Error(`comity needs Node.js ${OLDEST} or newer, and this is ${version}`);
}

export {};
