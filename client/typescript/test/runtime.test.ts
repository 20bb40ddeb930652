/** A Node.js that is too old is told so by the import. */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { promisify } from 'node:util';

const run = promisify(execFile);
const INDEX = new URL('../src/index.ts', import.meta.url).href;

/** Import the package in a process that takes itself for another version. */
function importedBy(version: string): Promise<{ stdout: string }> {
  const versions = JSON.stringify({ ...process.versions, node: version });
  const code = `Object.defineProperty(process, 'versions', { value: ${versions} });
    await import(${JSON.stringify(INDEX)}); console.log('imported');`;
  return run(process.execPath, ['--input-type=module', '--eval', code]);
}

test('the oldest that works is the one that the package names', async () => {
  const { engines } = JSON.parse(await readFile(new URL('../package.json', import.meta.url), 'utf8'));
  const oldest = Number.parseInt(engines.node.replace('>=', ''), 10);
  assert.equal((await importedBy(`${oldest}.0.0`)).stdout, 'imported\n');
  await assert.rejects(importedBy(`${oldest - 1}.9.0`), /Error: comity needs Node\.js 22 or newer, and this is 21\.9\.0/);
});
