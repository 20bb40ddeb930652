import assert from 'node:assert/strict';
import { test } from 'node:test';

import { AlreadyExists, Conflict, NotFound } from '../src/index.ts';
import { client } from './servers.ts';

test('a checkpoint is returned to, and what was undone is brought back', async () => {
  using state = client();
  await state.put('draft/a', 1);
  await state.put('other', 1);
  const mark = await state.checkpoint('before', { labels: { by: 'node' }, message: 'just in case' });
  assert.deepEqual([mark.revision, mark.keyCount, mark.labels, mark.author], [2n, 2n, { by: 'node' }, 'node']);
  await state.put('draft/a', 2);
  await state.put('draft/b', 2);
  await state.delete('other');
  const changed = await state.diff(mark).all();
  assert.deepEqual(
    changed.map(({ key, before, after }) => [key, before?.value, after?.value]),
    [
      ['draft/a', 1, 2],
      ['draft/b', undefined, 2],
      ['other', 1, undefined],
    ],
  );
  assert.equal((await state.diff('before', 3, { prefix: 'draft/' }).all()).length, 1);
  const dry = await state.restore(mark, { prefix: 'draft/', dryRun: true });
  assert.deepEqual([dry.put, dry.deleted, dry.differences.length], [1n, 1n, 2]);
  const done = await state.restore('before', { prefix: 'draft/' });
  assert.deepEqual(
    (await state.list().all()).map(({ key, value }) => [key, value]),
    [['draft/a', 1]],
  );
  await state.restore(done.revision - 1n);
  assert.equal((await state.get('draft/b'))?.value, 2);
  await assert.rejects(state.restore(1, { ifRevision: 1 }), Conflict);

  await assert.rejects(state.checkpoint('before'), AlreadyExists);
  assert.deepEqual(await state.getCheckpoint('before'), mark);
  assert.deepEqual(await state.checkpoints({ labels: { by: 'node' } }).all(), [mark]);
  await state.deleteCheckpoint('before');
  await assert.rejects(state.restore(mark), NotFound);
});

test('a fork is merged, with its conflicts for the caller to decide', async () => {
  using state = client();
  await state.put('plan', 1);
  await state.put('notes', 1);
  const idea = await state.fork(`${state.namespace}-f`, { message: 'what if' });
  assert.equal((await idea.describe()).parent, state.namespace);
  await idea.put('plan', 2);
  await idea.put('new', 2);
  await state.put('plan', 3);
  const conflict = await state.merge(idea);
  assert.deepEqual([conflict.merged, conflict.conflictCount], [false, 1n]);
  const [found] = conflict.conflicts;
  assert.deepEqual([found?.base?.value, found?.ours?.value, found?.theirs?.value], [1, 3, 2]);
  assert.equal((await state.merge(idea, { strategy: 'theirs', dryRun: true })).put, 2n);
  assert.equal((await state.merge(idea.namespace, { strategy: 'theirs' })).merged, true);
  assert.deepEqual(
    (await state.list().all()).map(({ value }) => value),
    [2, 1, 2],
  );
  await assert.rejects(state.merge('none'), NotFound);
  await assert.rejects(state.merge(idea, { strategy: 'mine' as never }), RangeError);
  await assert.rejects(state.fork(idea.namespace), AlreadyExists);
  await idea.deleteNamespace();
});
