import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { registerHooks } from 'node:module';

import type { runSeed } from './cluster.ts';

/** A defect, put into the product's own source as it is loaded: `from` becomes `to` in `file`. */
export interface Mutant {
  readonly name: string;
  /** The first seed that found it when it was last looked for; others are tried when it does not any more. */
  readonly foundBy: number;
  readonly edits: readonly { readonly file: string; readonly from: string; readonly to: string }[];
}

const raft = 'replication/raft.ts';
const replica = 'replication/replica.ts';

/** Each breaks one rule that the simulation must find broken. */
export const mutants: readonly Mutant[] = [
  {
    name: 'a follower acknowledges before its sync',
    foundBy: 1,
    edits: [
      {
        file: raft,
        from: 'this.#reply(leader, true, Math.min(this.#matched, this.#durable), sequence);',
        to: 'this.#reply(leader, true, this.#matched, sequence);',
      },
    ],
  },
  {
    name: 'the leader sends its entries, and counts itself, before its sync',
    foundBy: 20,
    edits: [
      { file: raft, from: 'progress.next <= this.#durable &&', to: 'progress.next <= this.#log.last.index &&' },
      { file: raft, from: 'entry.index > this.#durable', to: 'entry.index > this.#log.last.index' },
      { file: raft, from: 'const matches = [this.#durable, ', to: 'const matches = [this.#log.last.index, ' },
      {
        file: raft,
        from: 'Math.min(matches[this.#majority() - 1] ?? 0, this.#durable)',
        to: '(matches[this.#majority() - 1] ?? 0)',
      },
    ],
  },
  {
    name: 'entries of earlier terms are committed by counting',
    foundBy: 4,
    edits: [
      {
        file: raft,
        from: 'replicated > this.#commit && this.#log.position(replicated)?.term === this.#term',
        to: 'replicated > this.#commit',
      },
    ],
  },
  {
    name: 'the previous entry is not checked',
    foundBy: 51,
    edits: [
      {
        file: raft,
        from: 'if (own?.term !== message.previous.term) {',
        to: 'if (own === undefined) {',
      },
      { file: raft, from: 'if (own.hash !== message.previous.hash) {', to: 'if (own.index < 0) {' },
    ],
  },
  {
    name: 'term and vote are not written',
    foundBy: 1,
    edits: [{ file: replica, from: 'if (ready.hardState !== undefined) saveHardState(ready.hardState);', to: '' }],
  },
  {
    name: 'a voter votes for a log that ends before its own',
    foundBy: 1,
    edits: [
      {
        file: raft,
        from: 'const granted = message.term === this.#term && free && upToDate;',
        to: 'const granted = message.term === this.#term && free;',
      },
    ],
  },
  {
    name: 'a voter votes twice in a term',
    foundBy: 41,
    edits: [
      {
        file: raft,
        from: 'const free = this.#votedFor === undefined || this.#votedFor === from;',
        to: 'const free = this.#role === "follower";',
      },
    ],
  },
  {
    name: 'what is appended is applied before it is committed',
    foundBy: 1,
    edits: [
      {
        file: replica,
        from: 'this.#submit(appends, due ? commit : this.#applyRequested);',
        to: 'this.#submit(appends, this.#tail.last.index);',
      },
    ],
  },
  {
    name: 'a conflicting tail is not cut',
    foundBy: 1,
    edits: [{ file: raft, from: 'if (own?.term === entry.term) {', to: 'if (own !== undefined) {' }],
  },
  {
    name: 'entries are sent before the own sync, with only one node to lead',
    foundBy: 36,
    edits: [
      { file: raft, from: 'progress.next <= this.#durable &&', to: 'progress.next <= this.#log.last.index &&' },
      { file: raft, from: 'entry.index > this.#durable', to: 'entry.index > this.#log.last.index' },
    ],
  },
  {
    name: 'lost batches are not sent again',
    foundBy: 1,
    edits: [
      {
        file: raft,
        from: '} else if (message.sequence >= progress.rewoundAt) {',
        to: '} else if (message.sequence < 0) {',
      },
    ],
  },
  {
    name: 'a stored answer does not wait for its entry',
    foundBy: 1,
    edits: [
      {
        file: 'switch/owner.ts',
        from: 'this.#whenDurable(decision.transaction.index, range.durability, decision.answer, done);',
        to: "done({ kind: 'answer', answer: decision.answer });",
      },
    ],
  },
  {
    name: 'a new leader decides before its own entry is committed, without the entries after its fold',
    foundBy: 1,
    edits: [
      { file: 'switch/owner.ts', from: 'this.#commit < this.#firstOfTerm || this.#firstOfTerm === 0', to: 'false' },
      {
        file: 'switch/owner.ts',
        from: 'applyToLedger(this.#overlay, this.#options.group, index, term, body);',
        to: '',
      },
    ],
  },
];

const root = new URL('../../', import.meta.url).href;

/** Module graphs that carry `?mutant=N` in their addresses get that mutant's edits; installed once. */
let installed = false;
function install(): void {
  if (installed) return;
  installed = true;
  registerHooks({
    resolve(specifier, context, next) {
      const result = next(specifier, context);
      const mutant = /\?mutant=\d+$/.exec(context.parentURL ?? '')?.[0];
      const isOurs = result.url.startsWith(root) && !result.url.includes('/node_modules/');
      return mutant === undefined || !isOurs || result.url.includes('?')
        ? result
        : { ...result, url: result.url + mutant };
    },
    load(url, context, next) {
      const result = next(url, context);
      const mutant = mutants[Number(/\?mutant=(\d+)$/.exec(url)?.[1] ?? -1)];
      const edits = mutant?.edits.filter(({ file }) => url.startsWith(`${root}${file}?`)) ?? [];
      if (edits.length === 0) return result;
      let source = readFileSync(new URL(url), 'utf8');
      for (const { from, to, file } of edits) {
        assert.equal(
          source.split(from).length,
          2,
          `${file} has "${from}" once: the mutant "${mutant?.name ?? ''}" is out of date`,
        );
        source = source.replace(from, () => to);
      }
      return { ...result, source };
    },
  });
}

interface Simulation {
  readonly runSeed: typeof runSeed;
}

/** The simulation with the mutant's defect in it. */
export async function loadMutant(mutant: Mutant): Promise<Simulation> {
  install();
  return (await import(`./cluster.ts?mutant=${mutants.indexOf(mutant)}`)) as Simulation;
}
